//! The results as tables: a hop is a row, a size a column.

use crate::results::{Results, Way};
use portcullis_datapath::meter::Hop;
use portcullis_perf::clocks;

/// All of them, one for each direction and number of SAs.
pub fn draw(results: &Results) -> String {
    let mut text = String::new();
    for way in &results.ways {
        for sas in &results.sas {
            text += &table(results, *way, *sas);
        }
    }
    text
}

fn table(results: &Results, way: Way, sas: u32) -> String {
    let mut text = format!(
        "\n{}, {} SAs: clocks per packet, and Mpps by the wall, in memory\n",
        way.name(),
        thousands(sas)
    );
    let mut row = |name: &str, cell: &dyn Fn(usize) -> String| {
        text += &format!("{name:<18}");
        (0..results.sizes.len()).for_each(|size| text += &format!("{:>9}", cell(size)));
        text += "\n";
    };
    let number = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.0}"));
    row("octets, clear IP", &|size| results.sizes[size].to_string());
    let (whole, hops) = (|size| results.whole(way, sas, size), |size| results.hops(way, sas, size));
    if hops(0).is_some() {
        for hop in Hop::ALL {
            row(clocks::name(hop), &|size| number(hops(size).map(|hops| hops[hop as usize])));
        }
        row("sum of hops", &|size| number(hops(size).map(|hops| hops.iter().sum())));
    }
    if whole(0).is_some() {
        row("1 worker", &|size| number(whole(size)));
    }
    if whole(0).and(hops(0)).is_some() {
        row(" without crypto", &|size| {
            number(whole(size).zip(hops(size)).map(|(whole, hops)| whole - hops[Hop::Crypto as usize]))
        });
    }
    let two = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.2}"));
    for workers in &results.workers {
        let rate = |size, workers| results.rate(way, sas, size, workers);
        if rate(0, *workers).is_none() {
            continue;
        }
        row(&format!("Mpps, {workers} worker{}", if *workers == 1 { "" } else { "s" }), &|size| {
            two(rate(size, *workers).map(|rate| rate / 1e6))
        });
        if *workers > 1 {
            row(" times one", &|size| {
                two(rate(size, *workers).zip(rate(size, 1)).map(|(many, one)| many / one))
            });
        }
    }
    text
}

/// A number with its thousands set apart.
pub fn thousands(n: u32) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
