//! What `portcullis status` shows: iked's report, the runtime region, and what the datapath told of itself.
//! The region with the keys is never opened.

use crate::{
    client,
    iked::SOCKET_FILE,
    report::{Report, SaReport},
};
use portcullis_sadb::{BytesPerSa, Generation, RuntimeReader, SlotIndex};
use serde_json::{Map, Value, json};
use std::{fmt::Write, fs, path::Path};

/// What the datapath tells of itself, in the regions' directory.
const DATAPATH_FILE: &str = "datapath.json";

/// All that is known, as one JSON object. Parts that cannot be had are null, with the reason beside them.
pub fn collect(directory: &Path) -> Value {
    let (iked, iked_error) = part(client::report(&directory.join(SOCKET_FILE)));
    let (runtime, runtime_error) = part(RuntimeReader::open(directory));
    let told: Option<Value> = fs::read_to_string(directory.join(DATAPATH_FILE))
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .filter(|_| runtime.as_ref().is_some_and(RuntimeReader::datapath_alive));
    let connections = iked.as_ref().map(|r| connections(r, runtime.as_ref()));
    json!({
        "iked": iked.as_ref().map(|r| json!({
            "pid": r.pid, "keys_locked": r.keys_locked, "policies": r.policies,
        })),
        "iked_error": iked_error,
        "connections": connections,
        "datapath": runtime.as_ref().map(|r| datapath(r, told.as_ref())),
        "datapath_error": runtime_error,
        "regions": runtime.as_ref().map(|r| {
            let sizes = r.sizes();
            let BytesPerSa { slot, index, runtime } = sizes.bytes_per_sa();
            json!({
                "directory": directory, "instance": format!("{:016x}", r.instance()),
                "max_sas": sizes.max_sas, "max_policies": sizes.max_policies,
                "sadb_bytes": sizes.sadb_bytes(), "runtime_bytes": sizes.runtime_bytes(),
                "bytes_per_sa": { "slot": slot, "index": index, "runtime": runtime,
                    "total": slot + index + runtime },
            })
        }),
    })
}

fn part<T, E: std::fmt::Display>(result: Result<T, E>) -> (Option<T>, Option<String>) {
    match result {
        Ok(value) => (Some(value), None),
        Err(e) => (None, Some(e.to_string())),
    }
}

fn connections(report: &Report, runtime: Option<&RuntimeReader>) -> Value {
    let mut list = vec![];
    for c in &report.connections {
        let mut value = serde_json::to_value(c).unwrap_or_default();
        for (direction, sa) in [("inbound", &c.inbound), ("outbound", &c.outbound)] {
            if let (Some(sa), Some(Value::Object(object))) = (sa, value.get_mut(direction)) {
                count(sa, runtime, object);
            }
        }
        list.push(value);
    }
    Value::Array(list)
}

/// Adds what the runtime region knows of an SA. One that no worker has met yet has counted nothing.
fn count(sa: &SaReport, runtime: Option<&RuntimeReader>, object: &mut Map<String, Value>) {
    let record = runtime.and_then(|r| r.sa(SlotIndex(sa.slot)));
    let record = record.filter(|r| r.generation == Generation(sa.generation));
    let counters = record.map(|r| r.counters).unwrap_or_default();
    for (key, n) in [
        ("packets", counters.packets),
        ("bytes", counters.bytes),
        ("icv_failures", counters.icv_failures),
        ("replay_duplicates", counters.replay_duplicates),
        ("replay_too_old", counters.replay_too_old),
        ("refused", counters.refused),
        ("reserved_seq", record.map_or(0, |r| r.reserved_seq)),
        ("highest_seen", record.map_or(0, |r| r.highest_seen)),
    ] {
        object.insert(key.to_owned(), n.into());
    }
}

fn datapath(runtime: &RuntimeReader, told: Option<&Value>) -> Value {
    let ready = runtime.workers();
    let mut drops = Map::new();
    let mut workers = vec![];
    let empty = vec![];
    let names = told.and_then(|t| t["drop_reasons"].as_array()).unwrap_or(&empty);
    for w in 0..64 {
        let Some(record) = runtime.worker(w) else { break };
        if w >= ready as usize && record.heartbeat == 0 {
            continue;
        }
        for (i, n) in record.drops.iter().enumerate() {
            let name = names.get(i).and_then(Value::as_str);
            if let Some(name) = name {
                let total = drops.get(name).and_then(Value::as_u64).unwrap_or(0) + n;
                drops.insert(name.to_owned(), total.into());
            }
        }
        let t = record.traffic;
        workers.push(json!({
            "worker": w, "heartbeat": record.heartbeat, "rx_packets": t.rx_packets, "rx_bytes": t.rx_bytes,
            "tx_packets": t.tx_packets, "tx_bytes": t.tx_bytes, "events_lost": record.events_lost,
        }));
    }
    let mut value = json!({
        "alive": runtime.datapath_alive(), "ready": ready > 0, "starts": runtime.datapath_starts(),
        "workers": workers, "drops": drops,
    });
    if let (Some(Value::Object(told)), Value::Object(object)) = (told, &mut value) {
        for key in [
            "pid",
            "cores",
            "crypto",
            "huge_pages",
            "huge_pages_fallback",
            "copy_reason",
            "keys_locked",
            "ports",
        ] {
            object.insert(key.to_owned(), told.get(key).cloned().unwrap_or_default());
        }
    }
    value
}

/// The same for people.
pub fn print(v: &Value) -> String {
    let mut out = String::new();
    let text = |v: &Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    if let Some(why) = v["iked_error"].as_str() {
        let _ = writeln!(out, "iked      {why}");
    } else {
        let _ = writeln!(out, "iked      process {}, {} policies", v["iked"]["pid"], v["iked"]["policies"]);
    }
    let d = &v["datapath"];
    if let Some(why) = v["datapath_error"].as_str() {
        let _ = writeln!(out, "datapath  {why}");
    } else if d["ready"] == true {
        let workers = d["workers"].as_array().map_or(0, Vec::len);
        let huge = if d["huge_pages"] == true { "huge pages" } else { "no huge pages" };
        let (pid, cores) = (&d["pid"], &d["cores"]);
        let _ = writeln!(
            out,
            "datapath  process {pid}, {workers} workers on cores {cores}, crypto {}, {huge}",
            text(&d["crypto"])
        );
    } else {
        let _ = writeln!(out, "datapath  does not run");
    }
    for p in d["ports"].as_array().unwrap_or(&vec![]) {
        let copy = if p["zero_copy"] == true { "zero-copy" } else { "copy" };
        let _ = writeln!(
            out,
            "port      {}: {} mode, {copy}, {} queues, MTU {}",
            text(&p["interface"]),
            text(&p["mode"]),
            p["queues"],
            p["mtu"]
        );
    }
    let r = &v["regions"];
    if r.is_object() {
        let b = &r["bytes_per_sa"];
        let _ = writeln!(
            out,
            "regions   {} SAs and {} policies at most; {} bytes per SA: slot {}, index {}, runtime {}",
            r["max_sas"], r["max_policies"], b["total"], b["slot"], b["index"], b["runtime"]
        );
    }
    for c in v["connections"].as_array().unwrap_or(&vec![]) {
        let state = if c["up"] == true { "up" } else { "down" };
        let _ = writeln!(
            out,
            "\n{} ({state}): {} - {}, {}, key {}",
            text(&c["name"]),
            text(&c["local"]),
            text(&c["remote"]),
            text(&c["algorithm"]),
            text(&c["key"])
        );
        for direction in ["inbound", "outbound"] {
            let s = &c[direction];
            if !s.is_object() {
                continue;
            }
            let seq = if direction == "inbound" { &s["highest_seen"] } else { &s["reserved_seq"] };
            let _ = write!(
                out,
                "  {direction:<8}  SPI {}  packets {}  bytes {}  sequence {seq}",
                text(&s["spi"]),
                s["packets"],
                s["bytes"]
            );
            for key in ["icv_failures", "replay_duplicates", "replay_too_old", "refused"] {
                if s[key] != 0 {
                    let _ = write!(out, "  {key} {}", s[key]);
                }
            }
            out.push('\n');
        }
    }
    let workers = d["workers"].as_array();
    for w in workers.unwrap_or(&vec![]) {
        let _ = write!(
            out,
            "\nworker {}: received {} packets, {} bytes; sent {} packets, {} bytes",
            w["worker"], w["rx_packets"], w["rx_bytes"], w["tx_packets"], w["tx_bytes"]
        );
    }
    let drops = d["drops"].as_object().into_iter().flatten().filter(|(_, n)| **n != 0);
    let drops: Vec<_> = drops.map(|(reason, n)| format!("{reason} {n}")).collect();
    if workers.is_some() {
        let _ =
            writeln!(out, "\ndropped: {}", if drops.is_empty() { "none".into() } else { drops.join(", ") });
    }
    out
}
