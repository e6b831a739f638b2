use super::{
    message::{Message, Writer, parse},
    packet::Packet,
    session::Session,
    *,
};
use crate::swanctl::{
    self,
    syntax::Section,
    tree::{Branch, Node},
};
use std::{
    io::{Read, Write},
    os::unix::net::UnixListener,
    path::Path,
    process::Command,
    thread,
};

/// What the Python package `vici` 6.0.3 makes of sections in sections, lists, and what is empty.
const PYTHON: &[u8] = b"\x03\x04key1\x00\x06value1\x01\x08section1\x01\x03sub\x03\x04key2\x00\x02\xc3\xbc\x03\x05empty\x00\x00\x02\
      \x04\x05list1\x05\x00\x05item1\x05\x00\x02\x00\xff\x05\x00\x00\x06\x02\x04\x04none\x06\x01\x03sec\x02";

#[test]
fn messages_are_read_and_written_as_by_python() {
    let tree = parse(PYTHON).unwrap();
    assert_eq!(
        tree.entries.iter().map(|entry| entry.name).collect::<Vec<_>>(),
        ["key1", "section1", "none", "sec"]
    );
    let node = |path: &[&str]| tree.find(path).unwrap().node.clone();
    assert_eq!(node(&["key1"]), Node::Value(b"value1"));
    assert_eq!(node(&["section1", "sub", "key2"]), Node::Value("ü".as_bytes()));
    assert_eq!(node(&["section1", "sub", "empty"]), Node::Value(b""));
    assert_eq!(node(&["section1", "list1"]), Node::List(vec![b"item1", b"\x00\xff", b""]));
    assert_eq!(node(&["none"]), Node::List(vec![]));
    let mut writer = Writer::default();
    writer.value("key1", "value1").section("section1", |section1| {
        section1.section("sub", |sub| {
            sub.value("key2", "ü").value("empty", "");
        });
        section1.list("list1", [&b"item1"[..], b"\x00\xff", b""]);
    });
    writer.list("none", [""; 0]).section("sec", |_| {});
    assert_eq!(writer.finish().unwrap().octets(), PYTHON);
    let mut again = Writer::default();
    again.branch(&tree);
    assert_eq!(again.finish().unwrap().octets(), PYTHON);
}

#[test]
fn what_is_no_message_is_refused_at_its_octet() {
    let deep: Vec<u8> = b"\x01\x01a".repeat(33);
    for (octets, why, offset) in [
        (&b"\x07"[..], Why::ElementType(7), 0),
        (b"\x00", Why::ElementType(0), 0),
        (b"\x03\x01a\x00\x02b", Why::Cut, 5),
        (b"\x03\x02a", Why::Cut, 2),
        (b"\x03\x00\x00\x00", Why::Name, 1),
        (b"\x03\x01\xff\x00\x00", Why::Name, 1),
        (b"\x01\x01a", Why::Cut, 3),
        (b"\x01\x01a\x02\x02", Why::NoSection, 4),
        (b"\x05\x00\x00", Why::NoList, 0),
        (b"\x06", Why::NoList, 0),
        (b"\x04\x01a\x03\x01b\x00\x00\x06", Why::NoItem, 3),
        (b"\x04\x01a\x05\x00\x00", Why::Cut, 6),
        (&deep, Why::TooDeep, 96),
    ] {
        assert_eq!(parse(octets).unwrap_err(), Malformed { why, offset }, "{octets:?}");
    }
    // Of no part of a message that ends in a section, or a list, or a name, is anything made up.
    for end in 1..PYTHON.len() {
        if let Ok(tree) = parse(&PYTHON[..end]) {
            let mut writer = Writer::default();
            writer.branch(&tree);
            assert_eq!(writer.finish().unwrap().octets(), &PYTHON[..end]);
        }
    }
}

#[test]
fn what_has_no_room_is_not_written() {
    let finish = |write: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::default();
        write(&mut writer);
        writer.finish().is_ok()
    };
    let (name, value) = ("n".repeat(255), "v".repeat(65_535));
    assert!(finish(&|w| ignore(w.value(&name, &value))));
    assert!(!finish(&|w| ignore(w.value(&(name.clone() + "n"), ""))));
    assert!(!finish(&|w| ignore(w.value("", ""))));
    assert!(!finish(&|w| ignore(w.value("n", value.clone() + "v"))));
    let many = |n: usize| finish(&|w| (0..n).for_each(|_| ignore(w.value("n", &value))));
    assert!(many(7) && !many(8));
    let long = Message::outcome(Err(&"ü".repeat(1_000)));
    assert_eq!(parse(long.octets()).unwrap().entries[1].node, Node::Value("ü".repeat(512).as_bytes()));
}

#[test]
fn packets_are_those_of_python_and_charon() {
    for (octets, packet) in [
        (
            &b"\x00\x09load-conn\x03\x01a\x00\x01b"[..],
            Packet::Request { name: "load-conn", message: b"\x03\x01a\x00\x01b" },
        ),
        (b"\x01\x03\x07success\x00\x03yes", Packet::Response(b"\x03\x07success\x00\x03yes")),
        (b"\x02", Packet::UnknownRequest),
        (b"\x03\x07list-sa", Packet::Register("list-sa")),
        (b"\x04\x07list-sa", Packet::Unregister("list-sa")),
        (b"\x05", Packet::Confirm),
        (b"\x06", Packet::UnknownEvent),
        (b"\x07\x07list-sa\x01\x01a\x02", Packet::Event { name: "list-sa", message: b"\x01\x01a\x02" }),
    ] {
        assert_eq!(Packet::parse(octets), Ok(packet));
        let mut emitted = vec![];
        packet.emit(&mut emitted).unwrap();
        assert_eq!((&emitted[..4], &emitted[4..]), (&(octets.len() as u32).to_be_bytes()[..], octets));
    }
    for (octets, why) in [
        (&b""[..], Why::Cut),
        (b"\x08", Why::PacketType(8)),
        (b"\x00\x02a", Why::Cut),
        (b"\x03\x00", Why::Name),
        (b"\x03\x01ab", Why::Trailing),
        (b"\x05x", Why::Trailing),
    ] {
        assert_eq!(Packet::parse(octets).unwrap_err().why, why, "{octets:?}");
    }
}

fn ignore(_: &mut Writer) {}

/// With its length before it.
fn framed(packet: &[u8]) -> Vec<u8> {
    [&(packet.len() as u32).to_be_bytes()[..], packet].concat()
}

/// Gives a session octets in pieces of `size` at most, and answers each request with its own name.
fn told(session: &mut Session, mut octets: &[u8], size: usize) -> Result<Vec<u8>, Malformed> {
    let mut sent = vec![];
    while !octets.is_empty() {
        let n = size.min(session.wanted()).min(octets.len());
        session.handle_octets(&octets[..n])?;
        octets = &octets[n..];
        let name = session.request().map(|request| request.name.to_owned());
        match name.as_deref() {
            Some("unknown") => session.respond_unknown(),
            Some(name) => {
                let mut answer = Writer::default();
                answer.value("name", name);
                session.respond(&answer.finish().unwrap());
            }
            None => {}
        }
        let n = session.outbound().len().min(size);
        sent.extend(&session.outbound()[..n]);
        session.handle_sent(n);
    }
    sent.extend(session.outbound());
    session.handle_sent(session.outbound().len());
    Ok(sent)
}

#[test]
fn a_session_answers_in_order_however_the_octets_come() {
    let packets: [&[u8]; 6] = [
        b"\x00\x07version",
        b"\x03\x07list-sa",
        b"\x03\x06no-one",
        b"\x00\x07unknown",
        b"\x04\x07list-sa",
        b"\x04\x07list-sa",
    ];
    let octets = packets.map(framed).concat();
    let wanted = [&b"\x01\x03\x04name\x00\x07version"[..], b"\x05", b"\x06", b"\x02", b"\x05", b"\x06"]
        .map(framed)
        .concat();
    for size in [1, 2, 3, 5, 100] {
        let mut session = Session::new(&["list-sa", "log"]);
        assert_eq!(told(&mut session, &octets, size).unwrap(), wanted, "{size}");
    }
}

#[test]
fn events_are_told_to_those_who_hear_of_them() {
    let mut session = Session::new(&["log", "list-sa"]);
    let message = Message::outcome(Ok(()));
    session.event("log", &message);
    assert_eq!(told(&mut session, &framed(b"\x03\x03log"), 100).unwrap(), framed(b"\x05"));
    assert!(session.hears_of("log") && !session.hears_of("list-sa"));
    session.event("log", &message);
    session.event("list-sa", &message);
    assert_eq!(session.outbound(), framed(b"\x07\x03log\x03\x07success\x00\x03yes"));
}

#[test]
fn a_session_ends_with_what_no_client_sends() {
    let refused = |octets: &[u8]| told(&mut Session::new(&[]), octets, 7).unwrap_err().why;
    assert_eq!(refused(&framed(b"\x01")), Why::PacketType(1));
    assert_eq!(refused(&framed(b"\x07\x01a")), Why::PacketType(7));
    assert_eq!(refused(&framed(b"")), Why::Cut);
    assert_eq!(refused(&framed(b"\x00")), Why::Cut);
    assert_eq!(refused(&[0, 8, 0, 1]), Why::TooLong(MAX_PACKET + 1));
    let mut session = Session::new(&[]);
    session.handle_octets(&[0, 8, 0, 0]).unwrap();
    assert_eq!(session.wanted(), MAX_PACKET);
    assert_eq!(Session::new(&[]).handle_octets(&[0; 5]).unwrap_err().why, Why::Unwanted);
    // A request that is not answered leaves what follows with the client.
    let mut session = Session::new(&[]);
    session.handle_octets(&[0, 0, 0, 3]).unwrap();
    session.handle_octets(b"\x00\x01a").unwrap();
    assert_eq!((session.wanted(), session.request().unwrap().name), (0, "a"));
    assert!(session.request().unwrap().message().unwrap().entries.is_empty());
}

/// Debian's swanctl 5.9.8, loading a file.
#[test]
fn what_swanctl_loads_is_what_its_file_says() {
    let load_conn = b"\x01\x04home\x03\x07version\x00\x012\x04\x0blocal_addrs\x05\x00\t192.0.2.1\x05\x00\x04%any\x06\
        \x03\tdpd_delay\x00\x0330s\x01\x05local\x03\x04auth\x00\x03psk\x03\x02id\x00\x0egw.example.org\x02\
        \x01\x06remote\x03\x04auth\x00\x03psk\x02\x01\x08children\x01\x03net\x04\x08local_ts\x05\x00\x0b10.1.0.0/16\x06\
        \x03\x0cstart_action\x00\x04trap\x02\x02\x02";
    let load_shared = b"\x03\x02id\x00\x05ike-1\x03\x04type\x00\x03ike\x03\x04data\x00\x02\x01\x02\
        \x04\x06owners\x05\x00\x0egw.example.org\x06";
    let load_pool = b"\x01\x02v4\x03\x05addrs\x00\x0b10.3.0.0/24\x04\x03dns\x05\x00\x0810.3.0.1\x05\x00\x0810.3.0.2\x06\x02";
    let file = swanctl::tests::parse(
        "connections { home { version = 2\n local_addrs = 192.0.2.1, %any\n dpd_delay = 30s\n\
         local { auth = psk\n id = gw.example.org }\n remote { auth = psk }\n\
         children { net { local_ts = 10.1.0.0/16\n start_action = trap } } } }\n\
         secrets { ike-1 { id-a = gw.example.org\n secret = 0x0102 } }\n\
         pools { v4 { addrs = 10.3.0.0/24\n dns = 10.3.0.1, 10.3.0.2 } }\n",
    )
    .unwrap();
    assert_eq!(swanctl::connections(&parse(load_conn).unwrap()).unwrap(), file.connections);
    assert_eq!(swanctl::pools(&parse(load_pool).unwrap()).unwrap(), file.pools);
    let shared = swanctl::secret::load_shared(&parse(load_shared).unwrap()).unwrap();
    assert_eq!([shared], file.secrets.shared[..]);
}

#[test]
fn connections_mean_the_same_in_a_file_and_in_a_message() {
    let text = "connections { a { local_addrs = 192.0.2.1, %any\n proposals = aes128-sha256-x25519, default\n\
        local-2 { round = 2\n auth = eap-tls\n certs = a.pem, b.pem }\n local-1 { id = \"C=CH, CN=a\" }\n\
        remote { cacert-1 { file = /ca.pem } }\n children { n { local_ts = 10.1.0.0/16[tcp/80], ::/0\n rekey_bytes = 5g } } }\n\
        b : connections.a { mobike = no } }";
    let top = Section::parse(Path::new("swanctl.conf"), text).unwrap();
    let branch = Branch::from(top.section("connections").unwrap());
    let mut writer = Writer::default();
    writer.branch(&branch);
    let message = writer.finish().unwrap();
    let tree = parse(message.octets()).unwrap();
    assert_eq!(swanctl::connections(&tree).unwrap(), swanctl::connections(&branch).unwrap());
    assert_eq!(swanctl::connections(&tree).unwrap().len(), 2);
}

/// swanctl asks a daemon of a few lines.
#[test]
fn swanctl_understands_what_it_is_told() {
    let directory = std::env::temp_dir().join(format!("portcullis-vici-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("vici.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let server = thread::spawn(move || {
        for _ in 0..4 {
            serve(&listener);
        }
    });
    let ask = |arguments: &[&str]| {
        let uri = format!("unix://{}", path.display());
        let out = Command::new("swanctl").args(arguments).args(["--uri", &uri]).output();
        let out = out.expect("swanctl is there: scripts/setup installs it");
        (out.status.success(), String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
    };
    let version = ask(&["--version", "--daemon"]);
    let stats = ask(&["--stats"]);
    let connections = ask(&["--list-conns"]);
    let unknown = ask(&["--terminate", "--ike", "home"]);
    server.join().unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(version.1.trim(), "strongSwan 0.1.0 portcullis-iked (Linux, 6.1, x86_64)");
    assert!(stats.1.contains("IKE_SAs: 2 total, 1 half-open"), "{stats:?}");
    assert!(
        connections.1.contains("home: IKEv2") && connections.1.contains("net: TUNNEL"),
        "{connections:?}"
    );
    assert!(!unknown.0, "{unknown:?}");
}

fn serve(listener: &UnixListener) {
    let (mut client, _) = listener.accept().unwrap();
    let mut session = Session::new(&["list-conn", "control-log"]);
    let mut room = vec![0; 1024];
    loop {
        let wanted = session.wanted().min(room.len());
        let read = client.read(&mut room[..wanted]).unwrap();
        if read == 0 {
            return;
        }
        session.handle_octets(&room[..read]).unwrap();
        let name = session.request().map(|request| request.name.to_owned());
        let mut answer = Writer::default();
        match name.as_deref() {
            None => {}
            Some("version") => {
                answer.value("daemon", "portcullis-iked").value("version", "0.1.0");
                answer.value("sysname", "Linux").value("release", "6.1").value("machine", "x86_64");
                session.respond(&answer.finish().unwrap());
            }
            Some("stats") => {
                answer.section("ikesas", |sas| {
                    sas.value("total", "2").value("half-open", "1");
                });
                session.respond(&answer.finish().unwrap());
            }
            Some("list-conns") => {
                answer.section("home", |home| {
                    home.list("local_addrs", ["192.0.2.1"])
                        .list("remote_addrs", ["%any"])
                        .value("version", "IKEv2");
                    home.section("children", |children| {
                        children.section("net", |net| {
                            net.value("mode", "TUNNEL").list("local-ts", ["10.1.0.0/16"]);
                        });
                    });
                });
                session.event("list-conn", &answer.finish().unwrap());
                session.respond(&Message::default());
            }
            Some(_) => session.respond_unknown(),
        }
        client.write_all(session.outbound()).unwrap();
        session.handle_sent(session.outbound().len());
    }
}
