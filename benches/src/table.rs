//! The results as tables: a hop is a row, a size a column.

use crate::{
    clocks,
    results::{Results, Way},
};
use portcullis_datapath::meter::Hop;

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
    let mut text = format!("\n{}, {} SAs: clocks per packet, in memory\n", way.name(), thousands(sas));
    let mut row = |name: &str, cell: &dyn Fn(usize) -> String| {
        text += &format!("{name:<18}");
        (0..results.sizes.len()).for_each(|size| text += &format!("{:>9}", cell(size)));
        text += "\n";
    };
    let number = |n: Option<f64>| n.map_or("-".to_owned(), |n| format!("{n:.0}"));
    row("octets, clear IP", &|size| results.sizes[size].to_string());
    for hop in Hop::ALL {
        row(clocks::name(hop), &|size| number(results.hops(way, sas, size).map(|hops| hops[hop as usize])));
    }
    let sum = |size| results.hops(way, sas, size).map(|hops| hops.iter().sum::<f64>());
    row("sum of hops", &|size| number(sum(size)));
    for workers in &results.workers {
        let whole = |size| results.whole(way, sas, size, *workers);
        let name = if *workers == 1 { "1 worker".to_owned() } else { format!("{workers} workers") };
        row(&name, &|size| number(whole(size)));
        if *workers == 1 {
            row(" without crypto", &|size| {
                let crypto = results.hops(way, sas, size).map(|hops| hops[Hop::Crypto as usize]);
                number(whole(size).zip(crypto).map(|(whole, crypto)| whole - crypto))
            });
        }
        // One SA is one worker's, and keeps the others waiting.
        let workers = workers.min(&sas);
        row(" Mpps", &|size| {
            let rate = whole(size).map(|whole| results.conditions.machine.hz * *workers as f64 / whole / 1e6);
            rate.map_or("-".to_owned(), |mpps| format!("{mpps:.2}"))
        });
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
