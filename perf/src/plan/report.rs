//! Answers for people: text, and the same as Markdown.

use super::{
    answer::{Answer, Resource, Traffic},
    what_if::{Case, WhatIf},
};
pub use crate::report::Style;
use crate::report::table_text as table;
use std::fmt::Write;

/// A number with three digits that count, and the letter of its thousands.
fn short(value: f64) -> String {
    let (scaled, letter) = match value.abs() {
        v if v >= 1e12 => (value / 1e12, " T"),
        v if v >= 1e9 => (value / 1e9, " G"),
        v if v >= 1e6 => (value / 1e6, " M"),
        v if v >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let decimals = match scaled.abs() {
        v if v >= 100.0 || (letter.is_empty() && v.fract() == 0.0) => 0,
        v if v >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.decimals$}{letter}")
}

fn amount(value: f64, unit: &str) -> String {
    match unit {
        "octets" => format!("{:.2} GiB", value / f64::from(1 << 30)),
        "octets/s" => format!("{:.2} GB/s", value / 1e9),
        "cores" | "ports" => format!("{value:.2}"),
        _ => format!("{value:.0}"),
    }
}

fn percent(resource: &Resource) -> String {
    resource.utilisation.map_or("-".to_owned(), |u| format!("{:.1} %", u * 100.0))
}

fn traffic(t: &Traffic) -> String {
    format!(
        "{}pps, {}bit/s inner, {}bit/s outer",
        short(t.packets_per_sec),
        short(t.inner_bits_per_sec),
        short(t.outer_bits_per_sec)
    )
}

/// `n` of something.
fn of(n: u32, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

/// An answer.
pub fn answer(style: Style, answer: &Answer) -> String {
    let mut out = String::new();
    let head = |title: &str| match style {
        Style::Text => format!("\n{title}\n"),
        Style::Markdown => format!("\n## {title}\n\n"),
    };
    let load = &answer.each_box;
    let ways: Vec<String> = answer.directions.iter().map(ToString::to_string).collect();
    let boxes = of(answer.boxes, "box", "boxes");
    let spare = match answer.spare_boxes {
        0 => String::new(),
        n => format!(", {n} of them spare"),
    };
    let verdict = match (answer.fits, answer.boxes) {
        (true, _) => "",
        (false, 1) => " is not enough",
        (false, _) => " are not enough",
    };
    let cores = of(load.workers + load.other_cores, "core", "cores");
    let workers = of(load.workers, "worker", "workers");
    let ports = load.ports.map_or(String::new(), |n| format!(", {} on each side", of(n, "port", "ports")));
    _ = writeln!(
        out,
        "{boxes}{spare}{verdict}, each with {cores}: {workers}, as many queues of each port, {} for all else{ports}.",
        load.other_cores
    );
    _ = writeln!(out, "Full first: {}, at {} each way.", answer.binds, traffic(&answer.full_at));

    out += &head("Traffic each way");
    let t = &answer.traffic;
    let rows = [
        ("packets/s", t.packets_per_sec),
        ("bit/s, inner packets", t.inner_bits_per_sec),
        ("bit/s, outer packets", t.outer_bits_per_sec),
        ("bit/s on the clear side's links", t.clear_wire_bits_per_sec),
        ("bit/s on ESP's links", t.esp_wire_bits_per_sec),
    ];
    let rows = rows.map(|(name, value)| vec![name.to_owned(), short(value)]);
    out += &table(style, &[&[vec![ways.join(" and "), String::new()]][..], &rows].concat());

    out += &head("Each box");
    let mut rows = vec![["resource", "takes", "of", "used"].map(str::to_owned).to_vec()];
    for r in &load.resources {
        let capacity = r.capacity.map_or("-".to_owned(), |c| amount(c, r.unit));
        rows.push(vec![r.name.to_owned(), amount(r.demand, r.unit), capacity, percent(r)]);
    }
    out += &table(style, &rows);

    out += &head("Clocks of a packet, with a chance of 95 %");
    let mut rows = vec![["", "part", "likely", "from", "to"].map(str::to_owned).to_vec()];
    for path in &answer.paths {
        let name = format!("{} {}", path.direction, path.algorithm);
        let part = format!("{:.0} %", path.share * 100.0);
        let clocks = path.clocks;
        let ends = [clocks.value, clocks.low(), clocks.high()].map(|c| format!("{c:.1}"));
        rows.push([&[name, part][..], &ends].concat());
        for (hop, clocks) in &path.hops {
            rows.push(vec![
                format!("  {hop}"),
                String::new(),
                format!("{clocks:.1}"),
                String::new(),
                String::new(),
            ]);
        }
    }
    out += &table(style, &rows);

    out += &head("How sure");
    let item = |text: &str| match style {
        Style::Text => format!("  {text}\n"),
        Style::Markdown => format!("- {text}\n"),
    };
    let machine = &answer.machine;
    out += &item(&format!(
        "measured on {}, {:.3} GHz, {}, Linux {}, portcullis {}; ports: {}",
        machine.cpu,
        machine.clocks_per_sec / 1e9,
        machine.crypto,
        machine.kernel,
        machine.portcullis,
        answer.port
    ));
    let busy = load.busy_workers;
    out += &item(&format!(
        "{:.2} worker cores are busy, between {:.2} and {:.2}; boxes are for the most",
        busy.value,
        busy.low(),
        busy.high()
    ));
    for guess in &answer.guesses {
        out += &item(&format!("a guess, as none were measured: {guess}"));
    }
    answer.notes.iter().for_each(|note| out += &item(note));
    out
}

fn cell(case: &Case) -> String {
    match &case.answer {
        Err(_) => "no".to_owned(),
        Ok(a) => {
            let fits = if a.fits { "" } else { "not " };
            format!("{fits}{} x {}, {}", a.boxes, a.each_box.workers + a.each_box.other_cores, a.binds)
        }
    }
}

/// A table of cases: boxes and cores of each, and what is full first.
pub fn what_if(style: Style, what_if: &WhatIf) -> String {
    let names: Vec<&str> = what_if.vary.iter().map(|vary| vary.option.as_str()).collect();
    let mut out = match style {
        Style::Text => format!("\nWhat if: {}\n", names.join(", ")),
        Style::Markdown => format!("\n## What if: {}\n\n", names.join(", ")),
    };
    let mut rows = vec![];
    if let [down, across] = what_if.vary.as_slice() {
        rows.push([&[format!("{} \\ {}", down.option, across.option)][..], &across.values].concat());
        for (value, cases) in down.values.iter().zip(what_if.cases.chunks(across.values.len())) {
            rows.push(std::iter::once(value.clone()).chain(cases.iter().map(cell)).collect());
        }
        out += &table(style, &rows);
        out += if style == Style::Text {
            "  boxes x cores of each, full first\n"
        } else {
            "\nBoxes x cores of each, full first.\n"
        };
    } else {
        let head = ["boxes", "cores", "workers", "full first", "used", "full at, pps", "bit/s inner"]
            .map(str::to_owned);
        rows.push([&[names.concat()][..], &head].concat());
        for case in &what_if.cases {
            let columns = match &case.answer {
                Err(_) => ["no", "-", "-", "-", "-", "-", "-"].map(str::to_owned),
                Ok(a) => [
                    format!("{}{}", a.boxes, if a.fits { "" } else { " (too few)" }),
                    (a.each_box.workers + a.each_box.other_cores).to_string(),
                    a.each_box.workers.to_string(),
                    a.binds.to_owned(),
                    percent(a.each_box.binding()),
                    short(a.full_at.packets_per_sec),
                    short(a.full_at.inner_bits_per_sec),
                ],
            };
            rows.push([case.values.as_slice(), &columns].concat());
        }
        out += &table(style, &rows);
    }
    for case in &what_if.cases {
        if let Err(error) = &case.answer {
            out += &format!("  {}: {error}\n", case.values.join(", "));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (2.5, "2.50"),
            (9999.0, "9999"),
            (12_345.0, "12.3 k"),
            (1.488e7, "14.9 M"),
            (4e10, "40.0 G"),
            (1.23e14, "123 T"),
        ] {
            assert_eq!(short(value), text);
        }
    }

    #[test]
    fn tables_are_text_or_markdown() {
        let rows = [["a", "b"], ["long", "1"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(Style::Text, &rows), "  a     b\n  long  1\n");
        assert_eq!(table(Style::Markdown, &rows), "| a    | b |\n|---|--:|\n| long | 1 |\n");
    }
}
