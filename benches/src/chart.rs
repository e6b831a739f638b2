//! The results as bars, hops stacked in the packet's order: a column for each direction, a group for each size,
//! a bar for each number of SAs. The bars of a group have one scale.

use crate::{
    results::{Results, Way},
    table::thousands,
};
use portcullis_datapath::meter::Hop;
use portcullis_perf::clocks::{self, HOPS};
use std::fmt::Write;

const COLORS: [&str; HOPS] = [
    "#4e79a7", "#a0cbe8", "#59a14f", "#f28e2b", "#b6992d", "#8cd17d", "#e15759", "#bab0ac", "#b07aa1",
    "#499894", "#d37295",
];

const BAR: usize = 16;
const GAP: usize = 4;
const GROUP_HEAD: usize = 26;
const LABEL: f64 = 80.0;
const LONGEST: f64 = 440.0;
const COLUMN: f64 = LABEL + LONGEST + 70.0;
const TOP: usize = 84;

/// An SVG of all hops.
pub fn draw(results: &Results) -> String {
    let group = GROUP_HEAD + results.sas.len() * (BAR + GAP);
    let (width, height) = (COLUMN * results.ways.len() as f64 + 20.0, TOP + results.sizes.len() * group + 10);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(
        &mut svg,
        10.0,
        18,
        "font-size=\"14\" font-weight=\"bold\"",
        "Clocks per packet, hop by hop, in memory",
    );
    text(&mut svg, 10.0, 34, "fill=\"#555\"", &results.conditions.line());
    let mut x = 10.0;
    for hop in Hop::ALL {
        rectangle(&mut svg, x, 44, 11.0, 11, COLORS[hop as usize], clocks::name(hop));
        text(&mut svg, x + 15.0, 54, "", clocks::name(hop));
        x += 34.0 + 6.0 * clocks::name(hop).len() as f64;
    }
    for (column, way) in results.ways.iter().enumerate() {
        let x = 10.0 + COLUMN * column as f64;
        text(&mut svg, x, TOP - 8, "font-size=\"13\" font-weight=\"bold\"", way.name());
        for size in 0..results.sizes.len() {
            draw_group(&mut svg, results, *way, size, x, TOP + size * group);
        }
    }
    svg + "</svg>\n"
}

fn draw_group(svg: &mut String, results: &Results, way: Way, size: usize, x: f64, y: usize) {
    text(svg, x, y + 16, "font-weight=\"bold\"", &format!("{} octets", results.sizes[size]));
    let bars = results.sas.iter().map(|sas| results.hops(way, *sas, size).unwrap_or_default());
    let longest = bars.clone().map(|hops| hops.iter().sum()).fold(1.0, f64::max);
    for (i, (sas, hops)) in results.sas.iter().zip(bars).enumerate() {
        let top = y + GROUP_HEAD + i * (BAR + GAP);
        let end = x + LABEL - 6.0;
        text(svg, end, top + 12, "text-anchor=\"end\"", &format!("{} SAs", thousands(*sas)));
        let mut at = x + LABEL;
        for hop in Hop::ALL {
            let clocks = hops[hop as usize];
            let width = clocks / longest * LONGEST;
            rectangle(
                svg,
                at,
                top,
                width,
                BAR,
                COLORS[hop as usize],
                &format!("{}: {clocks:.0}", clocks::name(hop)),
            );
            at += width;
        }
        text(svg, at + 5.0, top + 12, "", &format!("{:.0}", hops.iter().sum::<f64>()));
    }
}

fn rectangle(svg: &mut String, x: f64, y: usize, width: f64, height: usize, color: &str, title: &str) {
    let _ = writeln!(
        svg,
        "<rect x=\"{x:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{color}\">\
         <title>{title}</title></rect>"
    );
}

fn text(svg: &mut String, x: f64, y: usize, style: &str, text: &str) {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y}\" {style}>{escaped}</text>");
}
