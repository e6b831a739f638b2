use super::*;
use portcullis_machine::strict::Document;

fn machine(datapath: &str) -> Machine {
    let text = format!("[datapath]\n{datapath}\n[[port]]\ninterface = \"lo\"\n");
    Machine::parse(&Document::from_text("portcullis.toml", text)).unwrap()
}

#[test]
fn kernels_are_judged() {
    for (release, verdict) in [
        ("5.10.0-30-amd64", Verdict::Fail),
        ("5.15.0", Verdict::Warn),
        ("6.1.0-18-amd64", Verdict::Warn),
        ("6.6.1", Verdict::Ok),
        ("7.0-rc1", Verdict::Ok),
        ("", Verdict::Fail),
    ] {
        assert_eq!(kernel(release).verdict, verdict, "{release}");
    }
}

#[test]
fn missing_capabilities_are_named() {
    assert_eq!(capabilities("CapEff:\t000001ffffffffff\n").verdict, Verdict::Ok);
    let finding = capabilities("CapEff:\t0000000000001000\n");
    assert_eq!(finding.verdict, Verdict::Fail);
    for name in ["CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_BPF"] {
        assert!(finding.found.contains(name), "{finding:?}");
    }
    assert!(!finding.found.contains("CAP_NET_ADMIN"), "{finding:?}");
}

#[test]
fn huge_pages_are_counted() {
    let meminfo = |total: u32, free: u32| {
        format!(
            "MemFree: 1 kB\nHugePages_Total:   {total}\nHugePages_Free:    {free}\nHugepagesize:       2048 kB\n"
        )
    };
    let with = |mode: &str, total, free| {
        huge_pages(&machine(&format!("huge_pages = \"{mode}\"")), &meminfo(total, free))
    };
    // 16384 frames of 4096 octets, 504 in each page.
    assert_eq!(with("auto", 40, 33).verdict, Verdict::Ok);
    let short = with("auto", 40, 32);
    assert_eq!(short.verdict, Verdict::Warn);
    assert_eq!(short.remedy.unwrap(), "sysctl vm.nr_hugepages=41, and the same in /etc/sysctl.d");
    assert_eq!(with("require", 0, 0).verdict, Verdict::Fail);
    assert_eq!(with("off", 0, 0).verdict, Verdict::Ok);
    assert_eq!(huge_pages(&machine(""), "").verdict, Verdict::Warn);
}

#[test]
fn workers_want_cores_of_their_own() {
    assert_eq!(workers(&machine("workers = 1"), 2).verdict, Verdict::Ok);
    assert_eq!(workers(&machine("workers = 3"), 1).verdict, Verdict::Warn);
    assert_eq!(workers(&machine("cores = [4000]"), 1).verdict, Verdict::Fail);
}

#[test]
fn forwarding_kernels_are_told() {
    assert_eq!(forwarding(|_| Some("0".into())).verdict, Verdict::Ok);
    let finding = forwarding(|path| Some(if path.contains("ipv6") { "1" } else { "0" }.into()));
    assert_eq!(finding.verdict, Verdict::Warn);
    assert_eq!(finding.remedy.unwrap(), "sysctl net.ipv6.conf.all.forwarding=0");
}

#[test]
fn findings_are_printed_with_what_to_do() {
    let findings = [ok("a", "good"), warn("b", "slow", "do this"), fail("c", "bad", "do that")];
    assert_eq!(
        print(&findings),
        "ok    a: good\nwarn  b: slow\n      -> do this\nFAIL  c: bad\n      -> do that\n3 checks: 1 fail, 1 warn\n"
    );
}

#[test]
fn without_a_configuration_the_rest_is_still_looked_at() {
    let findings = examine(Path::new("/nonexistent"));
    let named = |name: &str| findings.iter().find(|f| f.check == name).unwrap();
    assert_eq!(named("portcullis.toml").verdict, Verdict::Fail);
    assert!(named("portcullis.toml").found.contains("/nonexistent/portcullis.toml"));
    assert_eq!(named("connections.toml").verdict, Verdict::Fail);
    assert!(findings.iter().any(|f| f.check == "kernel"));
}
