//! What options say, in their units.

use super::{
    profile,
    question::{Headroom, Pcie, QuestionError, Rate},
    shares::Shares,
};
use portcullis_sadb::Algorithm;

/// The largest rate: what is above it is a slip of the pen.
const MOST_BITS: f64 = 1e15;
const MOST_PACKETS: f64 = 1e12;

pub(super) const SAY_RATE: &str = "say how much there is each way, such as 40Gbit/s, 500Mbit/s or 12Mpps";
const SAY_ALGORITHM: &str =
    "say for example aes-gcm-128, or a list with weights as aes-gcm-128:3,aes-gcm-256:1";

pub(super) fn wrong(option: &'static str, value: &str, why: &str, say: &'static str) -> QuestionError {
    QuestionError::Value { option, value: value.to_owned(), why: why.to_owned(), say }
}

pub(super) fn number(
    option: &'static str,
    value: &str,
    (least, most): (f64, f64),
    say: &'static str,
) -> Result<f64, QuestionError> {
    let number = value.parse::<f64>().ok().filter(|n| !n.is_nan());
    let number = number.ok_or_else(|| wrong(option, value, "not a number", say))?;
    match (least..=most).contains(&number) {
        true => Ok(number),
        false => Err(wrong(option, value, &format!("not from {least} to {most}"), say)),
    }
}

pub(super) fn count(
    option: &'static str,
    value: &str,
    (least, most): (u32, u32),
    say: &'static str,
) -> Result<u32, QuestionError> {
    let number = value
        .replace('_', "")
        .parse::<i128>()
        .map_err(|_| wrong(option, value, "not a whole number", say))?;
    let number = u32::try_from(number).ok().filter(|n| (least..=most).contains(n));
    number.ok_or_else(|| wrong(option, value, &format!("not from {least} to {most}"), say))
}

/// A number and what it is followed by.
fn split(value: &str) -> Option<(f64, &str)> {
    let end = value.find(|c: char| !(c.is_ascii_digit() || "+-._".contains(c))).unwrap_or(value.len());
    let (number, unit) = value.split_at(end);
    Some((number.replace('_', "").parse().ok()?, unit.trim()))
}

/// What a unit's first letter says, and the others.
fn prefix(unit: &str) -> (f64, &str) {
    let times = [('k', 1e3), ('K', 1e3), ('M', 1e6), ('G', 1e9), ('T', 1e12)];
    let known = times.into_iter().find_map(|(letter, times)| Some((times, unit.strip_prefix(letter)?)));
    known.unwrap_or((1.0, unit))
}

fn above_nothing(
    option: &'static str,
    value: &str,
    number: f64,
    most: f64,
    say: &'static str,
) -> Result<f64, QuestionError> {
    if number <= 0.0 {
        return Err(wrong(option, value, "an impossible rate: it has to be above 0", say));
    }
    if number > most {
        return Err(wrong(option, value, "an impossible rate: no network carries so much", say));
    }
    Ok(number)
}

pub(super) fn rate(value: &str) -> Result<Rate, QuestionError> {
    let (number, unit) = split(value).ok_or_else(|| wrong("rate", value, "not a rate", SAY_RATE))?;
    let (times, rest) = prefix(unit);
    match rest {
        "pps" => Ok(Rate::Packets(above_nothing("rate", value, number * times, MOST_PACKETS, SAY_RATE)?)),
        _ => bits("rate", value, SAY_RATE).map(Rate::Bits),
    }
}

/// Bits per second.
pub(super) fn bits(option: &'static str, value: &str, say: &'static str) -> Result<f64, QuestionError> {
    let (number, unit) = split(value).ok_or_else(|| wrong(option, value, "not a rate", say))?;
    let (times, rest) = prefix(unit);
    match rest {
        "bit/s" | "bps" | "b/s" => {}
        "" if times > 1.0 => {}
        "" => return Err(wrong(option, value, "a rate without a unit", say)),
        _ => return Err(wrong(option, value, &format!("'{unit}' is no unit of a rate"), say)),
    }
    above_nothing(option, value, number * times, MOST_BITS, say)
}

pub(super) fn octets(
    option: &'static str,
    text: &str,
    value: &str,
    say: &'static str,
) -> Result<f64, QuestionError> {
    let (number, unit) = split(text).ok_or_else(|| wrong(option, value, "not a number of octets", say))?;
    let times = match unit {
        "kB" => 1e3,
        "MB" | "M" => 1e6,
        "GB" | "G" => 1e9,
        "TB" | "T" => 1e12,
        "KiB" => 1024.0,
        "MiB" => 1048576.0,
        "GiB" => 1073741824.0,
        "TiB" => 1099511627776.0,
        _ => return Err(wrong(option, value, &format!("'{unit}' is no unit of octets"), say)),
    };
    match number > 0.0 && number * times < 1e18 {
        true => Ok(number * times),
        false => Err(wrong(option, value, "there is no such memory", say)),
    }
}

pub(super) fn algorithms(value: &str) -> Result<Shares<Algorithm>, QuestionError> {
    Shares::parse::<String>(value, |name| {
        profile::esp(name).ok_or_else(|| format!("there is no algorithm '{name}' of ESP"))
    })
    .map_err(|why| wrong("algorithm", value, &why, SAY_ALGORITHM))
}

pub(super) fn rekey(value: &str) -> Result<Option<f64>, QuestionError> {
    const SAY: &str = "say after how long child SAs are rekeyed, such as 1h, 30m or 3600s, or never";
    if value == "never" {
        return Ok(None);
    }
    let (number, unit) = split(value).ok_or_else(|| wrong("rekey", value, "not a time", SAY))?;
    let times = match unit {
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong("rekey", value, &format!("'{unit}' is no unit of time"), SAY)),
    };
    match number * times >= 1.0 && number * times <= 1e9 {
        true => Ok(Some(number * times)),
        false => Err(wrong("rekey", value, "not from a second to some years", SAY)),
    }
}

pub(super) fn headroom(value: &str) -> Result<Headroom, QuestionError> {
    const SAY: &str = "say n+1 for a box that may fail, or a factor from 1 to 100, such as 1.5";
    match value.strip_prefix("n+") {
        Some(boxes) => match boxes.parse() {
            Ok(boxes @ 0..=1000) => Ok(Headroom::Boxes(boxes)),
            _ => Err(wrong("headroom", value, "not a number of boxes from 0 to 1000", SAY)),
        },
        None => number("headroom", value, (1.0, 100.0), SAY).map(Headroom::Factor),
    }
}

pub(super) fn utilisation(value: &str) -> Result<f64, QuestionError> {
    const SAY: &str = "say how much of anything may be in use, such as 80%";
    let percent =
        value.strip_suffix('%').ok_or_else(|| wrong("utilisation", value, "not in percent", SAY))?;
    let percent = percent.parse::<f64>().ok().filter(|n| (1.0..=100.0).contains(n));
    Ok(percent.ok_or_else(|| wrong("utilisation", value, "not from 1 to 100 percent", SAY))? / 100.0)
}

pub(super) fn pcie(value: &str) -> Result<Pcie, QuestionError> {
    const SAY: &str = "say the generation and the lanes of all NICs of a box, such as 4x16";
    let parsed =
        value.split_once('x').and_then(|(g, l)| Some((g.parse::<u8>().ok()?, l.parse::<u32>().ok()?)));
    let (generation, lanes) =
        parsed.ok_or_else(|| wrong("pcie", value, "not a generation and lanes", SAY))?;
    if !(1..=6).contains(&generation) {
        return Err(wrong(
            "pcie",
            value,
            &format!("there is no generation {generation} of PCIe here, but 1 to 6"),
            SAY,
        ));
    }
    match (1..=1024).contains(&lanes) {
        true => Ok(Pcie { generation, lanes }),
        false => Err(wrong("pcie", value, "not from 1 to 1024 lanes", SAY)),
    }
}
