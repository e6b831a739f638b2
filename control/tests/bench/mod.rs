//! A directory with a configuration, and the programs that run on it.
#![allow(dead_code)]

pub mod pair;

use serde_json::Value;
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

pub const IKED: &str = env!("CARGO_BIN_EXE_portcullis-iked");
pub const PORTCULLIS: &str = env!("CARGO_BIN_EXE_portcullis");
/// For things that take milliseconds, on a machine that may be busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// `name` and the first octets of its keys decide all of a connection.
pub fn connection(name: &str, n: u8) -> String {
    format!(
        "\n[[connection]]\nname = \"{name}\"\nlocal = \"192.0.2.1\"\nremote = \"198.51.100.{n}\"\n\
         local_ts = [\"10.1.0.0/16\"]\nremote_ts = [\"10.2.{n}.0/24\"]\nalgorithm = \"aes-gcm-128\"\n\
         [connection.inbound]\nspi = \"0x{n:02x}01\"\nkey = \"0x{n:02x}aa0000000000000000000000000000ccccdddd\"\n\
         [connection.outbound]\nspi = \"0x{n:02x}02\"\nkey = \"0x{n:02x}bb0000000000000000000000000000ccccdddd\"\n"
    )
}

pub const ACKNOWLEDGED: &str = "manual_keys_repeat_nonces_when_the_regions_are_lost = true\n";

/// Whether `wanted` comes true before patience ends.
pub fn comes_true(mut wanted: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while !wanted() {
        if Instant::now() > end {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

pub struct Bench {
    pub directory: PathBuf,
    iked: Option<Child>,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Bench {
    /// With these connections, and room for `max_sas` SAs.
    pub fn new(connections: &str, max_sas: u32) -> Bench {
        Bench::under(&std::env::temp_dir(), connections, max_sas)
    }

    /// The same, in a directory of its own under this one.
    pub fn under(parent: &Path, connections: &str, max_sas: u32) -> Bench {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = parent.join(format!("portcullis-iked-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let bench = Bench { directory, iked: None };
        bench.resize(max_sas);
        bench.configure(connections);
        bench
    }

    pub fn run(&self) -> PathBuf {
        self.directory.join("run")
    }

    pub fn resize(&self, max_sas: u32) {
        let text = format!(
            "[regions]\ndirectory = \"{}\"\nmax_sas = {max_sas}\nmax_policies = 64\n[[port]]\ninterface = \"port0\"\n",
            self.run().display()
        );
        fs::write(self.directory.join("portcullis.toml"), text).unwrap();
    }

    pub fn configure(&self, connections: &str) {
        let path = self.directory.join("connections.toml");
        fs::write(&path, connections).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// Starts iked, and waits till it answers.
    pub fn start(&mut self) {
        self.start_by(&[]);
    }

    pub fn start_by(&mut self, prefix: &[&str]) {
        self.start_with(prefix, &[]);
    }

    pub fn start_with(&mut self, prefix: &[&str], options: &[&str]) {
        let log = File::create(self.directory.join("log")).unwrap();
        let words: Vec<&str> = prefix.iter().copied().chain([IKED, "--config"]).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).arg(&self.directory).args(options).stderr(log).stdin(Stdio::null());
        self.iked = Some(command.spawn().unwrap());
        let is_up = comes_true(|| UnixStream::connect(self.socket()).is_ok());
        assert!(is_up, "iked does not come up:\n{}", self.log());
    }

    pub fn pid(&self) -> u32 {
        self.iked.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut iked) = self.iked.take() {
            let _ = iked.kill();
            let _ = iked.wait();
        }
    }

    /// A signal by name.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid().to_string()]).status().unwrap();
        assert!(status.success());
    }

    /// Waits for its end, which is in good order.
    pub fn wait(&mut self) {
        let mut iked = self.iked.take().unwrap();
        assert!(comes_true(|| iked.try_wait().unwrap().is_some()), "iked does not end");
        assert!(iked.wait().unwrap().success(), "{}", self.log());
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    pub fn socket(&self) -> PathBuf {
        self.run().join("iked.sock")
    }

    /// Answers to lines that are sent at once.
    pub fn ask(&self, lines: &str) -> Vec<Value> {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(lines.as_bytes()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let answers = BufReader::new(stream).lines();
        answers.map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect()
    }

    pub fn command(&self, line: &str) -> Value {
        self.ask(&format!("{line}\n")).pop().unwrap()
    }

    pub fn status(&self) -> Value {
        self.command("{\"command\": \"status\"}")
    }

    /// SPI, slot and generation of each SA.
    pub fn sas(&self) -> Vec<(String, u64, u64)> {
        let status = self.status();
        let connections = status["connections"].as_array().unwrap();
        let sas = connections.iter().flat_map(|c| [&c["inbound"], &c["outbound"]]).filter(|s| s.is_object());
        sas.map(|s| {
            let number = |key: &str| s[key].as_u64().unwrap();
            (s["spi"].as_str().unwrap().to_owned(), number("slot"), number("generation"))
        })
        .collect()
    }

    /// What iked says when it refuses to run.
    pub fn refusal(&self) -> String {
        self.refusal_by(&[])
    }

    pub fn refusal_by(&self, prefix: &[&str]) -> String {
        let words: Vec<&str> = prefix.iter().copied().chain([IKED, "--config"]).collect();
        let out = Command::new(words[0]).args(&words[1..]).arg(&self.directory).output().unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{said}");
        assert_eq!(said.lines().count(), 1, "one clear line:\n{said}");
        said
    }

    /// The command, in this configuration.
    pub fn portcullis(&self, arguments: &[&str]) -> Output {
        portcullis(Path::new(PORTCULLIS), arguments, &self.directory)
    }
}

pub fn portcullis(program: &Path, arguments: &[&str], config: &Path) -> Output {
    Command::new(program).args(arguments).arg("--config").arg(config).stdin(Stdio::null()).output().unwrap()
}

/// Whether it says all of these.
pub fn assert_says(said: &str, words: &[&str]) {
    for word in words {
        assert!(said.contains(word), "'{word}' is not in: {said}");
    }
}

/// As another user, without capabilities; nothing if we are not root.
pub fn nobody() -> Option<Vec<&'static str>> {
    let words = "setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps=-all --bounding-set=-all";
    let is_root = fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t0\t");
    is_root.then(|| words.split(' ').collect())
}
