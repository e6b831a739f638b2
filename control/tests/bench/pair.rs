//! Two ends with a wire between them, of which one is asked by Debian's `swanctl`.

use super::{Bench, PATIENCE, assert_says};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/lab");

/// Two namespaces with a wire between them, which `scripts/lab` lends.
pub struct Lab {
    /// Which its namespaces begin with.
    pub name: String,
    lender: Child,
}

impl Lab {
    fn lend() -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("vici{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = Command::new(LAB);
        command.args(["lend", "link", &name]).stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
        let mut lab = Lab { name, lender: command.spawn().expect(LAB) };
        let mut said = String::new();
        BufReader::new(lab.lender.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said.trim(), lab.name, "{LAB} lend says why; it needs root");
        lab
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        drop(self.lender.stdin.take());
        let _ = self.lender.wait();
    }
}

/// What end `n` of the two has.
pub fn configuration(n: u8) -> String {
    let other = 3 - n;
    let child = |name: &str, net: u8| {
        format!(
            "{name} {{ local_ts = 10.{net}.{n}.0/24\n remote_ts = 10.{net}.{other}.0/24\n esp_proposals = aes128gcm16 }}\n"
        )
    };
    format!(
        "connections {{ peer {{ version = 2\n local_addrs = 10.99.0.{n}\n remote_addrs = 10.99.0.{other}\n\
         proposals = aes128gcm16-prfsha256-x25519\n local {{ auth = psk\n id = {n}.example.org }}\n\
         remote {{ auth = psk\n id = {other}.example.org }}\n children {{ {} {} }} }} }}\n\
         secrets {{ ike-1 {{ secret = \"a key of this test alone\" }} }}\n",
        child("net", 11),
        child("other", 12)
    )
}

/// The two ends: the first is configured by VICI alone, the second has its file.
pub struct Pair {
    pub lab: Lab,
    pub ours: Bench,
    pub theirs: Bench,
}

impl Pair {
    pub fn new() -> Pair {
        Pair::of(&configuration(1), &configuration(2))
    }

    pub fn of(first: &str, second: &str) -> Pair {
        Pair::under(&std::env::temp_dir(), first, second)
    }

    pub fn under(directory: &Path, first: &str, second: &str) -> Pair {
        let lab = Lab::lend();
        let start = |node: &str, text: &str| {
            let mut bench = Bench::under(directory, "", 64);
            let file = bench.directory.join("swanctl.conf");
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
            fs::remove_file(bench.directory.join("connections.toml")).unwrap();
            bench.start_by(&["ip", "netns", "exec", &format!("{}-{node}", lab.name)]);
            bench
        };
        let (ours, theirs) = (start("a", ""), start("b", second));
        let pair = Pair { lab, ours, theirs };
        pair.load(first);
        pair
    }

    /// The first is killed, and started with these options.
    pub fn start_again(&mut self, options: &[&str]) {
        self.ours.kill();
        self.ours.start_with(&["ip", "netns", "exec", &format!("{}-a", self.lab.name)], options);
    }

    /// What `swanctl` says, with its exit code.
    pub fn ask(&self, arguments: &str) -> (Option<i32>, String) {
        let out = self.command(arguments).output().unwrap();
        let said = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        // Which of its own plugins are installed is not what is asked here.
        let of_libraries = |line: &&str| line.starts_with("plugin '");
        let said = said.split_inclusive('\n').filter(|line| !of_libraries(line)).collect();
        (out.status.code(), said)
    }

    pub fn command(&self, arguments: &str) -> Command {
        self.command_at(&self.ours, arguments)
    }

    pub fn command_at(&self, end: &Bench, arguments: &str) -> Command {
        let mut command = Command::new("swanctl");
        command.args(arguments.split_whitespace()).arg("--uri");
        command.arg(format!("unix://{}", end.run().join("charon.vici").display()));
        command.env("SWANCTL_DIR", self.swanctl()).stdin(Stdio::null());
        command
    }

    /// The directory of what it loads.
    pub fn swanctl(&self) -> PathBuf {
        self.ours.directory.join("swanctl")
    }

    /// What it says, if it is content.
    pub fn says(&self, arguments: &str, words: &[&str]) -> String {
        let (code, said) = self.ask(arguments);
        assert_eq!(code, Some(0), "{arguments}: {said}\n{}", self.ours.log());
        assert_says(&said, words);
        said
    }

    pub fn refuses(&self, arguments: &str, words: &[&str]) {
        let (code, said) = self.ask(arguments);
        assert_eq!(code, Some(1), "{arguments}: {said}");
        assert_says(&said, words);
    }

    /// Loads a configuration by VICI.
    pub fn load(&self, text: &str) -> String {
        fs::create_dir_all(self.swanctl()).unwrap();
        fs::write(self.swanctl().join("swanctl.conf"), text).unwrap();
        self.says("--load-all", &["loaded ike secret 'ike-1'", "loaded connection 'peer'"])
    }

    /// Registers for events; what comes of these, packet by packet, as far as it is text.
    pub fn register(&self, events: &[&str]) -> impl FnMut() -> String + use<> {
        let mut stream = UnixStream::connect(self.ours.run().join("charon.vici")).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut next = move |sends: &[u8]| {
            stream.write_all(sends).unwrap();
            let mut length = [0; 4];
            stream.read_exact(&mut length).unwrap();
            let mut packet = vec![0; u32::from_be_bytes(length) as usize];
            stream.read_exact(&mut packet).unwrap();
            packet
        };
        for event in events {
            let n = event.len() as u8;
            assert_eq!(next(&[&[0, 0, 0, n + 2, 3, n], event.as_bytes()].concat()), [5], "{event}");
        }
        move || String::from_utf8_lossy(&next(&[])).into_owned()
    }

    /// The value of a key, as often as it is there in the list of SAs.
    pub fn values(&self, key: &str) -> Vec<String> {
        let said = self.says("--list-sas --raw", &[]);
        let behind = said.split([' ', '{', '}']).filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        behind.map(str::to_owned).collect()
    }
}
