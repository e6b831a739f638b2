use super::*;
use proptest::prelude::*;

const HOSTS: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

fn hosts() -> Vec<IpAddr> {
    HOSTS.iter().map(|host| host.parse().unwrap()).collect()
}

/// As it is printed.
fn read(selector: &str) -> Result<String, SelectorError> {
    Ok(ConfiguredSelectors::parse([selector])?.with(&hosts()).to_string())
}

#[test]
fn addresses_are_prefixes_ranges_or_hosts() {
    for (selector, printed) in [
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("10.1.2.3/16", "10.1.0.0/16"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("10.1.0.5", "10.1.0.5/32"),
        (" 10.1.0.5 - 10.1.0.9 ", "10.1.0.5-10.1.0.9"),
        ("10.1.0.0-10.1.255.255", "10.1.0.0/16"),
        ("0.0.0.0-255.255.255.255", "0.0.0.0/0"),
        ("10.1.0.1-10.1.0.2", "10.1.0.1-10.1.0.2"),
        ("fd00:1::/64", "fd00:1::/64"),
        ("::/0", "::/0"),
        ("fd00::1", "fd00::1/128"),
        ("fd00::1-fd00::ff", "fd00::1-fd00::ff"),
        ("dynamic", "192.0.2.7/32, 2001:db8::7/128"),
    ] {
        assert_eq!(read(selector).as_deref(), Ok(printed), "{selector}");
        let configured = ConfiguredSelectors::parse(["10.9.0.0/16", selector]).unwrap();
        assert_eq!(configured.is_dynamic(), selector == "dynamic");
    }
    for addresses in [
        "",
        "10.1.0.0/33",
        "10.1.0",
        "fd00::/129",
        "10.1.0.9-10.1.0.5",
        "10.1.0.5-fd00::1",
        "dynamics",
        "10.1.0.0/16-10.2.0.0/16",
    ] {
        let error = SelectorError::Addresses { addresses: addresses.into(), selector: addresses.into() };
        assert_eq!(read(addresses), Err(error));
    }
}

#[test]
fn what_is_behind_the_ip_header_is_in_brackets() {
    for (next_layer, protocol, ports, printed) in [
        ("", None, ANY_PORT, ""),
        ("[]", None, ANY_PORT, ""),
        ("[any]", None, ANY_PORT, ""),
        ("[any/any]", None, ANY_PORT, ""),
        ("[0/any]", None, ANY_PORT, ""),
        ("[tcp]", Some(6), ANY_PORT, "[tcp]"),
        ("[tcp/]", Some(6), ANY_PORT, "[tcp]"),
        ("[tcp/0-65535]", Some(6), ANY_PORT, "[tcp]"),
        ("[6/443]", Some(6), 443..=443, "[tcp/443]"),
        (" [ tcp / https ] ", Some(6), 443..=443, "[tcp/443]"),
        ("[udp/1000-2000]", Some(17), 1000..=2000, "[udp/1000-2000]"),
        ("[udp/domain]", Some(17), 53..=53, "[udp/53]"),
        ("[sctp/65535]", Some(132), 65535..=65535, "[sctp/65535]"),
        ("[tcp/opaque]", Some(6), OPAQUE_PORT, "[tcp/opaque]"),
        ("[gre]", Some(47), ANY_PORT, "[gre]"),
        ("[255]", Some(255), ANY_PORT, "[255]"),
        ("[icmp/8]", Some(1), 0x800..=0x8ff, "[icmp/8]"),
        ("[icmp/0-8]", Some(1), 0..=0x8ff, "[icmp/0-8]"),
        ("[icmp/3/4]", Some(1), 0x304..=0x304, "[icmp/3/4]"),
        ("[icmp/3/0-3/4]", Some(1), 0x300..=0x304, "[icmp/3/0-3/4]"),
        ("[icmp/2048]", Some(1), 0x800..=0x800, "[icmp/8/0]"),
        ("[ipv6-icmp/128-129]", Some(58), 0x8000..=0x81ff, "[icmpv6/128-129]"),
        ("[icmp/0-255]", Some(1), ANY_PORT, "[icmp]"),
        ("[135/5]", Some(135), 0x500..=0x5ff, "[135/5]"),
    ] {
        let configured = ConfiguredSelectors::parse([&*format!("10.0.0.0/8{next_layer}")]).unwrap();
        let selectors = configured.with(&[]);
        let [selector] = selectors.0[..] else { panic!("{selectors}") };
        assert_eq!((selector.protocol(), selector.ports()), (protocol, ports), "{next_layer}");
        assert_eq!(selector.to_string(), format!("10.0.0.0/8{printed}"));
    }
    assert_eq!(read("dynamic[udp/l2tp]").as_deref(), Ok("192.0.2.7/32[udp/1701], 2001:db8::7/128[udp/1701]"));
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let message = |selector| read(selector).unwrap_err().to_string();
    assert_eq!(
        message("10.1.0.0/16[tpc/443]"),
        "'tpc' in '10.1.0.0/16[tpc/443]' is no protocol, such as tcp, udp, icmp or a number from 0 to 255"
    );
    assert_eq!(
        message("dynamic[tcp/htpps]"),
        "'htpps' in 'dynamic[tcp/htpps]' is no port, such as 443, 1000-2000, a service's name, opaque or any"
    );
    assert_eq!(
        message("10.1.0.0/16[gre/1]"),
        "'10.1.0.0/16[gre/1]' has ports, but not of a protocol that has some"
    );
    for selector in [
        "10.1.0.0/16[tcp",
        "10.1.0.0/16[tcp]/443",
        "10.1.0.0/16[[tcp]",
        "10.1.0.0/16[tcp]]",
        "10.1.0.0/16[tcp][udp]",
    ] {
        assert_eq!(read(selector), Err(SelectorError::Bracket(selector.into())));
    }
    // RFC 7296 §3.13.1
    for selector in ["dynamic[/53]", "dynamic[any/53]", "dynamic[0/opaque]", "dynamic[256/opaque]"] {
        assert!(
            matches!(read(selector), Err(SelectorError::NoPorts(_) | SelectorError::Protocol { .. })),
            "{selector}"
        );
    }
    for ports in ["65536", "-1", "5-4", "1-", "-", "1-2-3", "a", "1/2"] {
        let selector = format!("dynamic[tcp/{ports}]");
        assert_eq!(read(&selector), Err(SelectorError::Ports { ports: ports.into(), selector }));
    }
    for ports in ["65536", "8/256", "8/", "/8", "9-8", "3/4-3/3", "8/0/0", "a"] {
        let selector = format!("dynamic[icmp/{ports}]");
        assert_eq!(read(&selector), Err(SelectorError::Ports { ports: ports.into(), selector }));
    }
}

#[test]
fn dynamic_is_each_host() {
    let both = ConfiguredSelectors::parse(["10.0.0.0/8", "dynamic"]).unwrap();
    assert_eq!(both.with(&[]).to_string(), "10.0.0.0/8");
    assert_eq!(both.with(&hosts()[..1]).to_string(), "10.0.0.0/8, 192.0.2.7/32");
    assert_eq!(ConfiguredSelectors::dynamic(), ConfiguredSelectors::parse(["dynamic"]).unwrap());
    // No more than a payload can have.
    let many = ConfiguredSelectors::parse(vec!["dynamic"; 200]).unwrap();
    assert_eq!(many.with(&hosts()).0.len(), 255);
}

proptest! {
    /// What is printed is the same selector.
    #[test]
    fn what_is_printed_is_read(
        ends in any::<[u32; 2]>(),
        wide in any::<[u128; 2]>(),
        shift in 0..128u32,
        is_v4 in any::<bool>(),
        protocol in prop_oneof![Just(0), Just(1), Just(6), Just(135), any::<u8>()],
        ports in any::<[u16; 2]>(),
        kind in 0..4u8,
    ) {
        let of = |bits: u32, wide: u128| match is_v4 {
            true => IpAddr::V4((bits >> (shift % 32)).into()),
            false => IpAddr::V6((wide >> shift).into()),
        };
        let (a, b) = (of(ends[0], wide[0]), of(ends[1], wide[1]));
        let has_ports = matches!(protocol, 1 | 6 | 17 | 33 | 58 | 132 | 135 | 136);
        let ports = match kind {
            0 => OPAQUE_PORT,
            1 => ports[0].min(ports[1])..=ports[0].max(ports[1]),
            2 => ports[0] & 0xff00..=ports[0] | 0xff,
            _ => ports[0]..=ports[0],
        };
        let ports = if has_ports { ports } else { ANY_PORT };
        let selector = TrafficSelector::between(a.min(b), a.max(b)).unwrap().of(protocol, ports).unwrap();
        let printed = selector.to_string();
        prop_assert_eq!(ConfiguredSelectors::parse([&*printed]).unwrap().with(&[]).0, [selector]);
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(dynamic|10.0.0.0/8|fd00::-fd01::|\\PC{0,12})(\\[\\PC{0,8}(/[a-z0-9/-]{0,8})?\\])?") {
        let _ = read(&text).map_err(|error| error.to_string());
    }
}
