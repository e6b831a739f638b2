//! How many tunnels a gateway sets up in a second, by connections of swanctl.conf, and how soon packets go through each.

use super::{
    Measure,
    latency::{PERCENTS, json_of, micros},
    progress::Bar,
};
use crate::{
    clock::some_seconds,
    initiators::{Client, Load, Outcome, Traffic},
    interface::{mac, place},
    report::{Report, Table},
    traffic::Mix,
};
use clap::Args;
use portcullis_datapath::fib::Mac;
use serde_json::json;
use std::{error::Error, net::IpAddr, path::PathBuf, time::Duration};

/// By which connections, and how many.
#[derive(Args, Debug)]
#[command(
    after_help = "The gateway must let the same identity have many tunnels (unique = never), and where packets are to go through them, \
                  give each an address of a pool. Each connection says how it proves itself and exchanges keys: with several, \
                  each is measured in turn. This program has one thread: where it is the slower end, the rate is its own.\n\nExamples:\n  \
                  portcullis bench tunnels --config client --tunnels 10000\n  \
                  portcullis bench tunnels --config client --connection psk --connection ecdsa --packets 10 --out eth1 --in eth2 \
                  --dst-mac 02:00:00:00:00:01 --dst 10.0.2.2 --write tunnels.html"
)]
pub struct Options {
    /// The directory of swanctl.conf, of who begins.
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// A connection; several times [default: all].
    #[arg(long, value_name = "NAME", num_args = 1)]
    connection: Vec<String>,
    /// Tunnels of each connection.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tunnels: u32,
    /// Tunnels that are begun and not there yet, at most.
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    at_once: u32,
    /// Tunnels begun in a second, at most [default: as many as the gateway bears].
    #[arg(long, value_name = "N", value_parser = positive)]
    rate: Option<f64>,
    /// After so long without another tunnel it is over.
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = some_seconds)]
    patience: Duration,
    /// How often each child SA is rekeyed once all tunnels are there.
    #[arg(long, value_name = "TIMES", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1000), conflicts_with = "packets")]
    rekeys: u32,
    /// Packets per second through each tunnel, as soon as it is there.
    #[arg(long, value_name = "PPS", value_parser = positive, requires_all = ["out", "back", "dst_mac", "dst"])]
    packets: Option<f64>,
    /// Octets of these packets: a number, imix, or a list with weights.
    #[arg(long, value_name = "SIZES", default_value = "64")]
    sizes: Mix,
    /// How long they go on after the last tunnel.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = some_seconds)]
    hold: Duration,
    /// The interface that leads to the gateway.
    #[arg(long, value_name = "INTERFACE", requires = "packets")]
    out: Option<String>,
    /// The one where packets come out behind the gateway.
    #[arg(long = "in", id = "back", value_name = "INTERFACE", requires = "packets")]
    back: Option<String>,
    /// The gateway's MAC address.
    #[arg(long, value_name = "MAC", value_parser = mac, requires = "packets")]
    dst_mac: Option<Mac>,
    /// Where packets go, behind the gateway.
    #[arg(long, value_name = "ADDRESS", requires = "packets")]
    dst: Option<IpAddr>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|n: &f64| *n > 0.0 && n.is_finite());
    number.ok_or_else(|| "a number above 0".to_owned())
}

impl Options {
    fn load(&self) -> Load {
        let traffic = || {
            Some(Traffic {
                out: self.out.clone()?,
                back: self.back.clone()?,
                dst_mac: self.dst_mac?,
                dst: self.dst?,
                sizes: self.sizes.clone(),
                rate: self.packets?,
                hold: self.hold,
            })
        };
        Load {
            tunnels: self.tunnels,
            at_once: self.at_once,
            rate: self.rate,
            patience: self.patience,
            rekeys: self.rekeys,
            traffic: traffic(),
        }
    }
}

fn rate(outcome: &Outcome) -> f64 {
    f64::from(outcome.up) / outcome.taken.as_secs_f64().max(1e-9)
}

fn rekey_rate(outcome: &Outcome) -> f64 {
    f64::from(outcome.rekeyed) / outcome.rekeys_taken.as_secs_f64().max(1e-9)
}

impl Measure for Options {
    fn measure(&self, _: Option<usize>) -> Result<Report, Box<dyn Error>> {
        let (client, load) = (Client::read(&self.config)?, self.load());
        let names: Vec<String> = match self.connection.is_empty() {
            true => client.names().map(str::to_owned).collect(),
            false => self.connection.clone(),
        };
        if names.is_empty() {
            return Err(format!("{}: no connection of IKE in swanctl.conf", self.config.display()).into());
        }
        let mut bar = Bar::default();
        let mut outcomes = vec![];
        for name in &names {
            outcomes.push(client.run(name, &load, &mut |there, rekeyed| {
                let (done, all) = (there + rekeyed, self.tunnels * (1 + self.rekeys));
                let left = f64::from(all - done.min(all)) / f64::from(done.max(1));
                let what = match rekeyed {
                    0 => format!("{name}: {there} of {} tunnels", self.tunnels),
                    _ => format!("{name}: {rekeyed} of {} rekeyed", self.tunnels * self.rekeys),
                };
                bar.tell(&what, bar.spent().mul_f64(left));
            })?);
        }
        drop(bar);
        let taken = self.out.as_deref().map_or_else(|| "over the network".to_owned(), place);
        let mut table = Table::new(&[
            "Connection",
            "Tunnels per second",
            "Tunnels",
            "Not there",
            "Set-up, us: 50 %",
            "99 %",
            "First packet, us: 50 %",
            "99 %",
            "Packets sent",
            "Lost",
            "Rekeyed per second",
            "Rekeyed",
        ]);
        for (name, o) in names.iter().zip(&outcomes) {
            let [sent, came] = o.packets;
            let micros = |times, percent| format!("{:.0}", micros(times, percent));
            table.rows.push(vec![
                name.clone(),
                format!("{:.0}", rate(o)),
                o.up.to_string(),
                (self.tunnels - o.up.min(self.tunnels)).to_string(),
                micros(&o.setup, 50.0),
                micros(&o.setup, 99.0),
                micros(&o.first_packet, 50.0),
                micros(&o.first_packet, 99.0),
                sent.to_string(),
                sent.saturating_sub(came).to_string(),
                format!("{:.0}", rekey_rate(o)),
                o.rekeyed.to_string(),
            ]);
        }
        let mut note = "From the first message of a tunnel to its child SA; from then to its first packet behind the gateway.".to_owned();
        for (name, o) in names.iter().zip(&outcomes) {
            for (why, count) in &o.failed {
                note += &format!(" {name}: {count} of {why}.");
            }
        }
        let each = names.iter().zip(&outcomes).map(|(name, o)| {
            json!({
                "connection": name, "tunnels": o.up, "failed": o.failed, "seconds": o.taken.as_secs_f64(), "tunnels_per_second": rate(o),
                "setup_us": json_of(&o.setup), "first_packet_us": json_of(&o.first_packet), "first_packets": o.first_packet.count(),
                "packets": o.packets[0], "received": o.packets[1],
                "rekeyed": o.rekeyed, "rekeyed_per_second": rekey_rate(o),
            })
        });
        let data = json!({ "bench": "tunnels", "where": taken, "percents": PERCENTS, "connections": each.collect::<Vec<_>>() });
        let mut report = Report::new("Tunnels", &taken, data).with("Tunnels", &note, table, vec![]);
        for (name, o) in names.iter().zip(&outcomes) {
            report.measure(&format!("{name}, tunnels"), "per second", true, vec![rate(o)]);
        }
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parsed, *};

    #[test]
    fn what_makes_no_sense_is_said() {
        let dir = std::env::temp_dir().join(format!("portcullis-tunnels-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let conf = "connections { gw { local_addrs = 127.0.0.1
            local { auth = psk
            id = a.test }
            remote { auth = psk }
            children { net { } } } }
            secrets { ike-1 { secret = \"a test's\" } }";
        std::fs::write(dir.join("swanctl.conf"), conf).unwrap();
        let here = dir.to_str().unwrap();
        let tried = |words: &[&str]| {
            let words: Vec<&str> = ["--config", here].iter().chain(words).copied().collect();
            let options = parsed::<Options>(&words)?;
            options.measure(None).map(|_| ()).map_err(|e| e.to_string())
        };
        for (words, told) in [
            (&["--rate", "0"][..], "a number above 0"),
            (&["--packets", "10"], "--out"),
            (&["--rekeys", "1001"], "0..=1000"),
            (&["--rekeys", "1", "--packets", "10"], "--packets"),
            (&["--out", "eth9"], "--packets"),
            (&["--hold", "1e30"], "up to 100000 seconds"),
            (&["--patience", "1e30"], "up to 100000 seconds"),
            (&["--connection", "other"], "no connection 'other'; there are gw"),
            (&[], "gw.remote_addrs: it takes one address"),
            (&["--config", "/nowhere"], "--config"),
        ] {
            let error = tried(words).unwrap_err();
            assert!(error.contains(told), "{words:?}: {error}");
        }
        let nowhere =
            parsed::<Options>(&["--config", "/nowhere"]).unwrap().measure(None).map(|_| ()).unwrap_err();
        assert!(nowhere.to_string().contains("/nowhere/swanctl.conf"), "{nowhere}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
