//! The commands of VICI: what there is, and what each comes to.

use super::{
    control::{self, Begun, Control},
    listing::Listing,
    load,
    message::{Message, TooLong, Writer},
    names, redirect,
    selection::Selection,
    session::Request,
};
use crate::{
    ike::events::Counters,
    iked::{self, Iked, no_ike},
    swanctl::{Configuration, secret::Secrets, tree::Branch},
};
use std::time::{SystemTime, UNIX_EPOCH};

/// What a request comes to.
pub(super) enum Reply {
    /// Its answer.
    Now(Message),
    /// A list, and then the answer.
    Lists(Listing),
    /// The answer comes when it is done.
    Waits(Control),
    /// There is no such command.
    Unknown,
}

/// What a command does.
enum Does {
    /// Something, of which there is nothing to tell.
    Done(fn(&mut Iked, &Branch<'_>) -> Result<(), String>),
    /// It tells something.
    Tells(fn(&mut Iked, &Branch<'_>) -> Result<Message, TooLong>),
    /// It tells something, or why not.
    Tries(fn(&mut Iked, &Branch<'_>) -> Result<Message, String>),
    /// It tells a list.
    Lists(fn(&mut Iked, &Branch<'_>) -> Result<Listing, String>),
    /// It begins something.
    Begins(fn(&mut Iked, &Branch<'_>) -> Result<Begun, String>),
    /// It is refused.
    Refused(&'static str),
}

const TOKENS: &str = "keys on tokens cannot be used; keep them in files";

/// All of them, by name.
const COMMANDS: &[(&str, Does)] = &[
    ("version", Does::Tells(|_, _| version())),
    ("stats", Does::Tells(|iked, _| stats(iked))),
    ("reload-settings", Does::Done(|iked, _| reload(iked))),
    ("get-algorithms", Does::Tells(|_, _| algorithms())),
    ("get-counters", Does::Tries(counters)),
    ("reset-counters", Does::Done(reset_counters)),
    ("initiate", Does::Begins(control::initiate)),
    ("terminate", Does::Begins(control::terminate)),
    ("rekey", Does::Tries(control::rekey)),
    ("redirect", Does::Tries(redirect::redirect)),
    ("install", Does::Done(control::install)),
    ("uninstall", Does::Done(control::uninstall)),
    ("list-sas", Does::Lists(|iked, m| Ok(Listing::sas(iked, Selection::of(m)?)))),
    ("list-conns", Does::Lists(|iked, m| Ok(Listing::connections(iked, m.text("ike"))))),
    ("list-policies", Does::Lists(|iked, m| Ok(Listing::policies(iked, m)))),
    ("list-certs", Does::Lists(|iked, m| Ok(Listing::certificates(iked, m.text("type"), m.text("flag"))))),
    ("list-authorities", Does::Lists(|iked, m| Ok(Listing::authorities(iked, m.text("name"))))),
    ("load-conn", Does::Done(load::connection)),
    ("unload-conn", Does::Done(load::unload_connection)),
    ("get-conns", Does::Tells(|iked, _| load::names("conns", of(iked).connections.iter().map(|c| &c.name)))),
    ("load-cert", Does::Done(load::certificate)),
    ("load-key", Does::Tries(load::key)),
    ("load-token", Does::Refused(TOKENS)),
    ("unload-key", Does::Done(load::unload_key)),
    ("get-keys", Does::Tells(|iked, _| load::keys(iked))),
    ("flush-certs", Does::Done(load::flush)),
    ("load-shared", Does::Done(load::shared)),
    ("unload-shared", Does::Done(load::unload_shared)),
    (
        "get-shared",
        Does::Tells(|iked, _| load::names("keys", of(iked).secrets.shared.iter().map(|s| &s.name))),
    ),
    ("clear-creds", Does::Done(load::clear_credentials)),
    ("load-authority", Does::Done(load::authority)),
    ("unload-authority", Does::Done(load::unload_authority)),
    (
        "get-authorities",
        Does::Tells(|iked, _| load::names("authorities", of(iked).authorities.iter().map(|a| &a.name))),
    ),
    ("load-pool", Does::Done(load::pool)),
    ("unload-pool", Does::Done(load::unload_pool)),
    ("get-pools", Does::Tells(load::pools)),
];

/// Does what is asked.
pub(super) fn ask(iked: &mut Iked, request: &Request<'_>) -> Reply {
    let Some((_, does)) = COMMANDS.iter().find(|(name, _)| *name == request.name) else {
        return Reply::Unknown;
    };
    let message = match request.message() {
        Ok(message) => message,
        Err(malformed) => return Reply::Now(Message::outcome(Err(&malformed.to_string()))),
    };
    let replied = match does {
        Does::Done(done) => done(iked, &message).map(|()| Reply::Now(Message::outcome(Ok(())))),
        Does::Tells(tells) => tells(iked, &message).map(Reply::Now).map_err(|e| e.to_string()),
        Does::Tries(tries) => tries(iked, &message).map(Reply::Now),
        Does::Lists(lists) => lists(iked, &message).map(Reply::Lists),
        Does::Begins(begins) => begins(iked, &message).map(|begun| match begun {
            Begun::Done(message) => Reply::Now(message),
            Begun::Waits(control) => Reply::Waits(control),
        }),
        Does::Refused(why) => Err((*why).to_owned()),
    };
    replied.unwrap_or_else(|why| {
        tracing::warn!("{}: {why}", request.name);
        Reply::Now(Message::outcome(Err(&why)))
    })
}

static NOTHING: Configuration = Configuration {
    connections: vec![],
    secrets: Secrets { shared: vec![], passphrases: vec![] },
    pools: vec![],
    authorities: vec![],
};

/// What is configured; nothing without IKE.
fn of(iked: &mut Iked) -> &Configuration {
    iked.ike().map_or(&NOTHING, |(ike, _)| ike.configured())
}

fn version() -> Result<Message, TooLong> {
    let system = rustix::system::uname();
    let mut writer = Writer::default();
    writer
        .value("daemon", "portcullis-iked")
        .value("version", env!("CARGO_PKG_VERSION"))
        .value("sysname", system.sysname().to_bytes())
        .value("release", system.release().to_bytes())
        .value("machine", system.machine().to_bytes());
    writer.finish()
}

fn stats(iked: &mut Iked) -> Result<Message, TooLong> {
    let running = iked.running();
    let since = SystemTime::now().checked_sub(running).unwrap_or(UNIX_EPOCH);
    let since_secs = since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (jobs, threads, total, half_open) = iked.ike().map_or((0, 0, 0, 0), |(ike, _)| {
        let ((jobs, threads), engine) = (ike.jobs(), ike.engine());
        (jobs, threads, engine.ike_sas().count(), engine.half_open())
    });
    let (busy, n) = (jobs.min(threads), usize::to_string);
    let mut writer = Writer::default();
    // One priority is enough; the others are there for who asks.
    let by_priority = |writer: &mut Writer, of: usize| {
        writer.value("critical", "0").value("high", "0").value("medium", n(&of)).value("low", "0");
    };
    writer
        .section("uptime", |uptime| {
            uptime.value("running", ago(running.as_secs())).value("since", utc(since_secs));
        })
        .section("workers", |workers| {
            workers.value("total", n(&threads)).value("idle", n(&(threads - busy)));
            workers.section("active", |active| by_priority(active, busy));
        })
        .section("queues", |queues| by_priority(queues, jobs - busy))
        // Each IKE SA waits for one time.
        .value("scheduled", n(&total))
        .section("ikesas", |sas| {
            sas.value("total", n(&total)).value("half-open", n(&half_open));
        })
        .list("plugins", [] as [&str; 0]);
    writer.finish()
}

fn reload(iked: &mut Iked) -> Result<(), String> {
    iked.handle(iked::Request::Reload {}).map(drop)
}

/// By whom each is, behind it, is always the same.
fn algorithms() -> Result<Message, TooLong> {
    let mut writer = Writer::default();
    for (section, names) in names::all() {
        writer.section(section, |writer| {
            for name in &names {
                writer.value(name, "portcullis");
            }
        });
    }
    writer.finish()
}

fn counters(iked: &mut Iked, message: &Branch<'_>) -> Result<Message, String> {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    let (name, is_all) = (message.text("name"), message.text("all") == Some("yes"));
    let mut writer = Writer::default();
    writer.section("counters", |counters| {
        let of = ike.counters().filter(|(of, _)| is_all || name == Some(of));
        for (name, counts) in of {
            counters.section(name, |writer| {
                put_counts(writer, &counts);
            });
        }
        if name.is_none() {
            // The total has no name, which a message cannot have.
            let total = ike.counters().fold(Counters::default(), |sum, (_, of)| sum.and(of));
            counters.section("global", |writer| {
                put_counts(writer, &total);
                for (why, n) in ike.refused() {
                    writer.value(&format!("refused-{}", why.replace('_', "-")), n.to_string());
                }
            });
        }
    });
    writer.value("success", "yes");
    writer.finish().map_err(|e| e.to_string())
}

fn put_counts(writer: &mut Writer, of: &Counters) {
    for (name, n) in of.named() {
        writer.value(name, n.to_string());
    }
}

fn reset_counters(iked: &mut Iked, message: &Branch<'_>) -> Result<(), String> {
    let (ike, _) = iked.ike().ok_or_else(no_ike)?;
    let is_all = message.text("all") == Some("yes");
    ike.reset_counters(message.text("name").filter(|_| !is_all));
    Ok(())
}

/// A time that has passed, by its greatest unit.
fn ago(secs: u64) -> String {
    let (n, unit) = match secs {
        0..120 => (secs, "second"),
        120..7200 => (secs / 60, "minute"),
        7200..172_800 => (secs / 3600, "hour"),
        _ => (secs / 86_400, "day"),
    };
    format!("{n} {unit}{}", if n == 1 { "" } else { "s" })
}

/// Date and time of seconds since 1970.
fn utc(secs: u64) -> String {
    let (mut days, of_day) = (secs / 86_400, secs % 86_400);
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(is_leap(year)) {
        days -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{:02} {hour:02}:{minute:02}:{second:02} UTC", days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_people_read_them() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_399, "2000-02-28 23:59:59 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_704_067_199, "2023-12-31 23:59:59 UTC"),
            (1_704_067_200, "2024-01-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(secs), text);
        }
        for (secs, text) in [(1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (172_800, "2 days")] {
            assert_eq!(ago(secs), text);
        }
    }
}
