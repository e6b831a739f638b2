//! Bad questions, and profiles that are none.

use super::*;
use crate::plan::profile::ProfileError;
use std::path::Path;

#[test]
fn bad_questions_name_the_option_and_say_what_to_do() {
    let cases = [
        ("rate", "0Gbit/s", "impossible rate", "40Gbit/s"),
        ("rate", "-5Gbit/s", "impossible rate", "40Gbit/s"),
        ("rate", "2000000Tbit/s", "impossible rate", "40Gbit/s"),
        ("rate", "fast", "not a rate", "40Gbit/s"),
        ("rate", "10", "without a unit", "40Gbit/s"),
        ("rate", "10Gparsec", "'Gparsec' is no unit", "40Gbit/s"),
        ("rate", "1e400Gbit/s", "no unit", "40Gbit/s"),
        ("of", "middle", "neither", "inner or outer"),
        ("sizes", "20", "28 to 9000", "imix"),
        ("sizes", "64:0", "weight '0'", "imix"),
        ("algorithm", "rot13", "no algorithm 'rot13'", "aes-gcm-128"),
        ("algorithm", "hmac-sha2-256-128", "no algorithm", "aes-gcm-128"),
        ("outer", "5", "no version", "ipv4"),
        ("udp", "perhaps", "neither", "yes"),
        ("direction", "up", "no direction", "encap, decap or both"),
        ("tunnels", "0", "from 1 to", "from 1 on"),
        ("tunnels", "-1", "from 1 to", "from 1 on"),
        ("tunnels", "many", "whole number", "from 1 on"),
        ("new-tunnels", "-1", "not from 0", "per second"),
        ("new-tunnels", "nan", "not a number", "per second"),
        ("rekey", "0s", "not from a second", "1h"),
        ("rekey", "1week", "'week'", "1h"),
        ("headroom", "n-1", "not a number", "n+1"),
        ("headroom", "0.5", "not from 1", "n+1"),
        ("utilisation", "80", "percent", "80%"),
        ("utilisation", "120%", "not from 1 to 100", "80%"),
        ("port-speed", "0Gbit/s", "impossible rate", "100Gbit/s"),
        ("ports", "0", "from 1", "each side"),
        ("pcie", "4", "lanes", "4x16"),
        ("pcie", "9x16", "generation 9", "4x16"),
        ("memory-bandwidth", "40", "no unit", "40GB/s"),
        ("memory", "0GiB", "no such memory", "64GiB"),
        ("cores", "1", "from 2", "at least 2"),
        ("other-cores", "0", "from 1", "at least 1"),
        ("boxes", "0", "from 1", "how many"),
    ];
    for (option, value, why, say) in cases {
        let error = Question::default().set(option, value).unwrap_err().to_string();
        let named = error.starts_with(&format!("--{option} ")) && error.contains(value);
        assert!(named && error.contains(why) && error.contains(say), "{option} {value}: {error}");
    }
    let missing = Question::new([("tunnels", "1")]).unwrap_err().to_string();
    assert!(missing.starts_with("--rate is missing; say"), "{missing}");
    let all =
        Question::new([("rate", "1Gbit/s"), ("cores", "4"), ("other-cores", "4")]).unwrap_err().to_string();
    assert!(all.starts_with("--other-cores '4'"), "{all}");
    let spare =
        ask(&host(), &[("rate", "1Gbit/s"), ("boxes", "2"), ("headroom", "n+2")]).unwrap_err().to_string();
    assert!(spare.starts_with("--boxes '2'"), "{spare}");
}

#[test]
fn good_questions_are_what_they_say() {
    let options = [
        ("rate", "2.5Gbps"),
        ("rekey", "30m"),
        ("memory-bandwidth", "40GB/s"),
        ("pcie", "4x16"),
        ("udp", "yes"),
    ];
    let question = Question::new(options).unwrap();
    assert_eq!(question.rate, crate::plan::question::Rate::Bits(2.5e9));
    assert_eq!((question.rekey_secs, question.memory_bandwidth), (Some(1800.0), Some(40e9)));
    assert!(question.tunnel.udp);
    for (text, packets) in [("12Mpps", 12e6), ("500 kpps", 500e3), ("7pps", 7.0)] {
        assert_eq!(Question::new([("rate", text)]).unwrap().packets_per_sec(), packets);
    }
    // Every option that can be varied is one.
    for option in crate::plan::question::OPTIONS {
        let error = Question::default().set(option, "").err();
        assert!(!matches!(error, Some(QuestionError::NoOption { .. })), "{option}");
    }
}

#[test]
fn what_the_profile_does_not_have_is_told_with_what_it_has() {
    for (option, value, has) in [
        ("algorithm", "chacha20-poly1305", "aes-gcm-128, aes-gcm-256"),
        ("port", "nic", "memory"),
        ("new-tunnels", "1", ""),
    ] {
        let mut profile = host();
        profile.host.ike.clear();
        let error = ask(&profile, &[("rate", "1Gbit/s"), (option, value)]).unwrap_err();
        let text = error.to_string();
        let QuestionError::NotMeasured { .. } = error else { panic!("{text}") };
        assert!(text.contains(has) && text.contains("ask for"), "{text}");
    }
}

#[test]
fn profiles_lead_back() {
    let text = serde_json::to_string(&host()).unwrap();
    assert_eq!(Profile::parse(&text, Path::new("host.json")).unwrap(), host());
}

#[test]
fn profiles_that_are_none_are_refused() {
    let parse = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = serde_json::to_value(host()).unwrap();
        change(&mut value);
        Profile::parse(&value.to_string(), Path::new("host.json")).unwrap_err()
    };
    let version = parse(&|v| v["version"] = 1.into());
    assert!(matches!(version, ProfileError::Version { .. }));
    let version = version.to_string();
    for part in ["host.json", "version 1", "reads version 2", "bench calibrate"] {
        assert!(version.contains(part), "{version}");
    }
    assert!(matches!(parse(&|v| v["format"] = "capture".into()), ProfileError::Other { .. }));
    assert!(matches!(parse(&|v| drop(v["host"].take())), ProfileError::Form { .. }));
    let value = parse(&|v| v["paths"][0]["whole"]["terms"][0]["clocks"] = (-1.0).into());
    assert!(value.to_string().contains("clocks of a term is -1"), "{value}");
    assert!(matches!(
        parse(&|v| v["paths"][0]["whole"]["covariance"] = serde_json::json!([])),
        ProfileError::Value { .. }
    ));
    assert!(matches!(
        parse(&|v| v["host"]["machine"]["clocks_per_sec"] = 0.into()),
        ProfileError::Value { .. }
    ));
    assert!(matches!(Profile::parse("{", Path::new("host.json")).unwrap_err(), ProfileError::Form { .. }));
    assert!(matches!(Profile::load(Path::new("/nonexistent.json")).unwrap_err(), ProfileError::Read { .. }));
}
