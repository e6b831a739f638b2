//! Plots of reports, as SVG.

use plotters::{
    coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter},
    prelude::*,
};
use serde::{Deserialize, Serialize};
use std::{error::Error, ops::Range};

/// Pixels.
const SIZE: (u32, u32) = (760, 380);
const COLORS: [RGBColor; 6] = [
    RGBColor(0x4e, 0x79, 0xa7),
    RGBColor(0xe1, 0x57, 0x59),
    RGBColor(0x59, 0xa1, 0x4f),
    RGBColor(0xf2, 0x8e, 0x2b),
    RGBColor(0xb0, 0x7a, 0xa1),
    RGBColor(0x49, 0x98, 0x94),
];

/// An axis.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Axis {
    /// What it is of, with its unit.
    pub label: String,
    /// Logarithmic: all values are above 0.
    pub log: bool,
}

/// A line.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// Lines over an axis.
#[derive(Serialize, Deserialize, Clone, PartialEq, Debug)]
pub struct Plot {
    /// Its title.
    pub title: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// The lines.
    pub series: Vec<Series>,
}

impl Axis {
    /// An axis whose marks are as far apart as their values.
    pub fn linear(label: &str) -> Axis {
        Axis { label: label.to_owned(), log: false }
    }

    /// An axis of orders of magnitude.
    pub fn log(label: &str) -> Axis {
        Axis { label: label.to_owned(), log: true }
    }

    /// From where to where.
    fn range(&self, values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
        let (low, high) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(0.0, f64::max));
        match self.log {
            true if low.is_finite() && low > 0.0 => low / 1.2..high.max(low) * 1.2,
            true => 0.1..10.0,
            false => 0.0..if high > 0.0 { high * 1.05 } else { 1.0 },
        }
    }
}

impl Plot {
    /// As SVG.
    ///
    /// # Errors
    /// What the drawing library says.
    pub fn to_svg(&self) -> Result<String, Box<dyn Error>> {
        let points = self.series.iter().flat_map(|series| &series.points);
        let xs = self.x.range(points.clone().map(|p| p.0));
        let ys = self.y.range(points.map(|p| p.1));
        let mut svg = String::new();
        match (self.x.log, self.y.log) {
            (false, false) => self.draw(&mut svg, xs, ys),
            (false, true) => self.draw(&mut svg, xs, ys.log_scale()),
            (true, false) => self.draw(&mut svg, xs.log_scale(), ys),
            (true, true) => self.draw(&mut svg, xs.log_scale(), ys.log_scale()),
        }?;
        Ok(svg)
    }

    fn draw<X, Y>(&self, svg: &mut String, xs: X, ys: Y) -> Result<(), Box<dyn Error>>
    where
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let failed = |e: &dyn std::fmt::Display| format!("plot '{}': {e}", self.title);
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|e| failed(&e))?;
        let mut chart = ChartBuilder::on(&root)
            .margin(12)
            .caption(&self.title, ("sans-serif", 16))
            .x_label_area_size(44)
            .y_label_area_size(70)
            .build_cartesian_2d(xs, ys)
            .map_err(|e| failed(&e))?;
        chart
            .configure_mesh()
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .light_line_style(WHITE)
            .x_label_formatter(&|x| short(*x))
            .y_label_formatter(&|y| short(*y))
            .draw()
            .map_err(|e| failed(&e))?;
        for (series, color) in self.series.iter().zip(COLORS.iter().cycle()) {
            let line = LineSeries::new(series.points.iter().copied(), color.stroke_width(2)).point_size(2);
            let legend = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2));
            chart.draw_series(line).map_err(|e| failed(&e))?.label(&series.name).legend(legend);
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .draw()
            .map_err(|e| failed(&e))?;
        root.present().map_err(|e| failed(&e))?;
        Ok(())
    }
}

/// A mark of an axis.
fn short(value: f64) -> String {
    let (scaled, letter) = match value.abs() {
        v if v >= 1e9 => (value / 1e9, "G"),
        v if v >= 1e6 => (value / 1e6, "M"),
        v if v >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.3}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{letter}")
}
