use super::*;
use portcullis_sadb::{SaCounters, Sadb, Sizes, Traffic};
use std::time::Duration;

fn report() -> Report {
    let sa = |spi: &str, slot, generation| SaReport {
        spi: spi.to_owned(),
        slot,
        generation,
        reqid: 1,
        esn: true,
        replay_window: 1024,
        udp_encap: false,
        peer: None,
    };
    Report {
        pid: 100,
        keys_locked: true,
        sas: 2,
        policies: 4,
        private_bytes: 1601,
        ike: None,
        connections: vec![ConnectionReport {
            name: "site-b".into(),
            up: true,
            local: "192.0.2.1".into(),
            remote: "198.51.100.1".into(),
            interface: None,
            local_ts: vec!["10.1.0.0/16".into(), "fd00:1::/64".into()],
            remote_ts: vec!["10.2.0.0/16".into()],
            next_layer: "tcp, remote port 443".into(),
            protocol: "esp".into(),
            mode: "tunnel".into(),
            algorithm: "aes-gcm-128".into(),
            key: "(hidden)".into(),
            inbound: Some(sa("0x00001001", 0, 5)),
            outbound: Some(sa("0x00001002", 1, 6)),
            pairs: vec![],
            stock: None,
        }],
    }
}

fn told(pid: u32) -> Told {
    serde_json::from_value(serde_json::json!({
        "pid": pid, "workers": 1, "cores": [3], "crypto": "aes-gcm (ring)", "huge_pages": false,
        "bytes_per_sa": {"state": 1000, "index": 8},
        "huge_pages_fallback": "no huge pages: sysctl vm.nr_hugepages=32", "keys_locked": true, "unknown": 1,
        "ports": [{"interface": "eth0", "mode": "generic", "mode_fallback": "its driver has no XDP",
                   "zero_copy": false, "need_wakeup": true, "queues": 2, "mtu": 1500}],
        "drop_reasons": ["malformed", "bad_checksum", "fragment"],
    }))
    .unwrap()
}

#[test]
fn all_parts_come_together() {
    let (sadb, _, runtime) = Sadb::heap(&Sizes { max_sas: 8, max_policies: 8 }).unwrap();
    let reader = sadb.runtime().clone();
    runtime.set_ready(1);
    let worker = runtime.worker(0);
    worker.quiesce();
    worker.count_traffic(&Traffic { rx_packets: 7, rx_bytes: 700, tx_packets: 6, tx_bytes: 600, handed: 2 });
    worker.count_busy(Duration::from_millis(3));
    worker.count_busy(Duration::from_millis(2));
    worker.count_drops(1, 3);
    worker.count_drops(9, 2);
    runtime.sa(SlotIndex(0)).adopt(Generation(5));
    runtime.sa(SlotIndex(0)).count(&SaCounters {
        packets: 4,
        bytes: 464,
        replay_duplicates: 1,
        ..Default::default()
    });
    runtime.sa(SlotIndex(0)).see(41);
    // A line that is of an SA before.
    runtime.sa(SlotIndex(1)).adopt(Generation(2));
    runtime.sa(SlotIndex(1)).count(&SaCounters { packets: 9, ..Default::default() });

    let pid = reader.datapath_pid();
    let status = Status::of(Path::new("/run/x"), Ok(report()), Ok(reader), Some(told(pid)));
    assert!(status.is_running());
    let json = serde_json::to_value(&status).unwrap();
    let iked = serde_json::json!({
        "pid": 100, "keys_locked": true, "sas": 2, "policies": 4, "private_bytes": 1601, "bytes_per_sa": 800,
    });
    assert_eq!(json["iked"], iked);
    let c = &json["connections"][0];
    assert_eq!(
        (c["name"].as_str(), c["up"].as_bool(), c["key"].as_str()),
        (Some("site-b"), Some(true), Some("(hidden)"))
    );
    let inbound = &c["inbound"];
    for (key, value) in [
        ("spi", "0x00001001".into()),
        ("slot", 0.into()),
        ("packets", 4.into()),
        ("bytes", 464.into()),
        ("replay_duplicates", 1.into()),
        ("highest_seen", 41.into()),
        ("reqid", 1.into()),
    ] as [(&str, serde_json::Value); 7]
    {
        assert_eq!(inbound[key], value, "{key}");
    }
    assert_eq!(c["outbound"]["packets"], 0);
    let d = &json["datapath"];
    assert_eq!(
        (d["alive"].as_bool(), d["ready"].as_bool(), d["pid"].as_u64()),
        (Some(true), Some(true), Some(pid.into()))
    );
    assert_eq!(
        d["drops"],
        serde_json::json!({"malformed": 0, "bad_checksum": 3, "fragment": 0, "reason_9": 2})
    );
    assert_eq!(d["workers"].as_array().unwrap().len(), 1);
    assert_eq!(d["workers"][0]["busy_us"], 5000);
    assert_eq!(
        (d["workers"][0]["rx_packets"].as_u64(), d["workers"][0]["dropped"].as_u64()),
        (Some(7), Some(5))
    );
    assert_eq!(d["ports"][0]["mode"], "generic");
    let b = &json["regions"]["bytes_per_sa"];
    assert_eq!(
        b["total"].as_u64().unwrap(),
        ["slot", "index", "runtime"].iter().map(|k| b[k].as_u64().unwrap()).sum::<u64>()
    );

    // Eight of each: a policy has two lines, its word and two chain heads, and a set of SAs for classes or workers.
    assert_eq!((b["slot"].as_u64(), b["runtime"].as_u64()), (Some(360), Some(128)));
    assert_eq!(b["policies"].as_u64(), Some(128 + 4 + 2 * 4 + 256));
    assert_eq!(d["bytes_per_sa"], serde_json::json!({"state": 1000, "index": 8}));

    let text = status.to_string();
    let index = b["index"].as_u64().unwrap();
    let memory = format!(
        "memory    bytes per SA: regions {} (slot 360, index {index}, runtime 128) and 396 for policies; datapath 1000 \
         in its worker and 8 in each; iked 800\n",
        360 + index + 128
    );
    assert!(text.contains(&memory), "{text}");
    for wanted in [
        "iked      process 100; keys locked in memory\n",
        "1 worker on core 3; crypto aes-gcm (ring); small pages\n",
        "2 of 8 SAs, 4 of 8 policies\n",
        "eth0  generic  copy    yes               2  1500\n",
        "note: no huge pages: sysctl",
        "note: eth0: its driver has no XDP\n",
        "site-b      up     192.0.2.1  198.51.100.1  esp tunnel  aes-gcm-128  (hidden)  10.1.0.0/16, fd00:1::/64 <-> 10.2.0.0/16, tcp, remote port 443\n",
        "site-b  inbound   0x00001001        4    464             41        1        0         0        0\n",
        "drops: bad_checksum 3 reason_9 2\n",
    ] {
        assert!(text.contains(wanted), "{text}\n{wanted}");
    }
}

#[test]
fn what_is_away_says_so() {
    let missing = || RegionError::Missing { path: "/run/x/runtime".into() };
    let refused = ClientError::Refused("busy".into());
    let status = Status::of(Path::new("/run/x"), Err(refused), Err(missing()), None);
    assert!(!status.is_running());
    let json = serde_json::to_value(&status).unwrap();
    assert!(json["iked"].is_null() && json["connections"].is_null() && json["datapath"].is_null());
    assert_eq!(json["iked_error"], "busy");
    let text = status.to_string();
    assert!(text.starts_with("iked      busy\ndatapath  /run/x/runtime: no such region"), "{text}");
}

#[test]
fn a_file_of_another_datapath_tells_only_names() {
    let (sadb, _, runtime) = Sadb::heap(&Sizes { max_sas: 8, max_policies: 8 }).unwrap();
    runtime.set_ready(1);
    runtime.worker(0).count_drops(2, 1);
    let reader = sadb.runtime().clone();
    let other = told(reader.datapath_pid() + 1);
    let status = Status::of(Path::new("/run/x"), Ok(report()), Ok(reader), Some(other));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["datapath"]["drops"]["fragment"], 1);
    assert!(json["datapath"].get("pid").is_none() && json["datapath"].get("ports").is_none());
    assert!(status.to_string().contains("datapath  runs\n"), "{status}");
}

#[test]
fn sas_of_classes_and_of_a_stock_say_what_they_are_for() {
    let (sadb, _, runtime) = Sadb::heap(&Sizes { max_sas: 8, max_policies: 8 }).unwrap();
    runtime.set_ready(1);
    runtime.worker(0).quiesce();
    runtime.worker(0).count_acquires_untold(3);
    let reader = sadb.runtime().clone();
    let mut report = report();
    let first = report.connections[0].clone();
    let pair = |dscp: &[u8], selector: Option<&str>| PairReport {
        dscp: dscp.to_vec(),
        selector: selector.map(str::to_owned),
        inbound: first.inbound.clone(),
        outbound: None,
    };
    report.connections[0].pairs = vec![pair(&[46, 34], None)];
    let populated = ConnectionReport {
        name: "stock".into(),
        inbound: None,
        outbound: None,
        pairs: vec![pair(&[], Some("10.1.0.1/32 -> 10.2.0.1/32")), pair(&[], None)],
        stock: Some(StockReport { pairs: 2, taken: 2, refused: 5 }),
        ..first.clone()
    };
    report.connections.push(populated);
    let pid = reader.datapath_pid();
    let status = Status::of(Path::new("/run/x"), Ok(report), Ok(reader), Some(told(pid)));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["connections"][0]["pairs"][0]["dscp"], serde_json::json!([46, 34]));
    assert_eq!(json["connections"][0]["stock"], serde_json::Value::Null);
    assert_eq!(json["connections"][1]["stock"], serde_json::json!({"pairs": 2, "taken": 2, "refused": 5}));
    assert_eq!(json["datapath"]["workers"][0]["acquires_untold"], 3);
    let text = status.to_string();
    for wanted in [
        "site-b  inbound, other DSCPs ",
        "site-b  outbound, other DSCPs ",
        "site-b  inbound, DSCP 46 34 ",
        "stock   inbound, 10.1.0.1/32 -> 10.2.0.1/32 ",
        "stock   inbound, not in use ",
        "note: connection 'stock': 2 of 2 pairs of its stock are used; packets asked 5 times for more: add [[connection.sas]]",
        "note: 3 packets asked for SAs of which iked was not told",
    ] {
        assert!(text.contains(wanted), "{text}\n{wanted}");
    }
}
