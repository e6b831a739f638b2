//! Commands that begin something with SAs, and wait for what comes of it.

use super::{
    message::{Message, Writer},
    selection::{Selected, Selection},
};
use crate::{
    ike::Ike,
    iked::{Iked, no_ike},
    report::{EventReport, What},
    swanctl::tree::Branch,
};
use portcullis_ike::v2::ike_sa::{IkeSaId, Phase};
use std::time::{Duration, Instant};

/// The level of what is logged of SAs: what a client wants that asks for no other.
const LEVEL: i64 = 1;

/// What a client waits for.
pub struct Control {
    goal: Goal,
    /// Until when; for ever, if it is not said.
    deadline: Option<(Instant, Duration)>,
    /// How much it hears of it.
    pub level: i64,
    failure: Option<String>,
}

/// What is to come true.
enum Goal {
    /// An IKE SA is up.
    IkeUp(IkeSaId),
    /// A child SA of this name is up, under an IKE SA.
    ChildUp(IkeSaId, String, bool),
    /// These are gone, of so many.
    Gone(Selected, usize),
}

/// What a command comes to.
pub enum Begun {
    /// Its answer.
    Done(Message),
    /// It waits.
    Waits(Control),
}

/// `initiate`.
///
/// # Errors
/// Why not.
pub fn initiate(iked: &mut Iked, message: &Branch<'_>) -> Result<Begun, String> {
    let (child, connection) = (message.text("child"), message.text("ike"));
    if child.is_none() && connection.is_none() {
        return Err("say which: child, or ike".to_owned());
    }
    let (ike, sadb) = iked.ike().ok_or_else(no_ike)?;
    ike.set_heard(true);
    let id = ike.initiate(connection, child, sadb)?;
    let goal = match child {
        Some(child) => Goal::ChildUp(id, child.to_owned(), false),
        None => Goal::IkeUp(id),
    };
    begin(message, goal)
}

/// `terminate`.
///
/// # Errors
/// Why not.
pub fn terminate(iked: &mut Iked, message: &Branch<'_>) -> Result<Begun, String> {
    let selection = Selection::of(message)?;
    if selection.is_all() {
        return Err("say which: child, ike, child-id or ike-id".to_owned());
    }
    let is_forced = message.text("force") == Some("yes");
    let (ike, sadb) = iked.ike().ok_or_else(no_ike)?;
    let selected = selection.select(ike.engine(), |spi| ike.child_id(spi));
    let matches = selected.len();
    if matches == 0 {
        return Ok(Begun::Done(counted(0, &[], Err("there is no such SA to terminate"))));
    }
    ike.set_heard(true);
    match &selected {
        Selected::Ike(ids) => {
            for id in ids {
                ike.with(sadb, |engine, cx| match is_forced {
                    true => engine.abandon(*id, cx),
                    false => engine.terminate(*id, cx),
                });
            }
        }
        Selected::Children(spis) => {
            for spi in spis {
                ike.with(sadb, |engine, cx| engine.terminate_child(*spi, cx));
            }
        }
    }
    begin(message, Goal::Gone(selected, matches))
}

/// `install`: a trap, or a shunt.
///
/// # Errors
/// Why not.
pub fn install(iked: &mut Iked, message: &Branch<'_>) -> Result<(), String> {
    lay(iked, message, true)
}

/// `uninstall`.
///
/// # Errors
/// Why not.
pub fn uninstall(iked: &mut Iked, message: &Branch<'_>) -> Result<(), String> {
    lay(iked, message, false)
}

fn lay(iked: &mut Iked, message: &Branch<'_>, is_laid: bool) -> Result<(), String> {
    let child = message.text("child").ok_or("say which: child")?;
    let (ike, sadb) = iked.ike().ok_or_else(no_ike)?;
    ike.lay(message.text("ike"), child, is_laid, sadb)
}

/// `rekey`, which does not wait.
///
/// # Errors
/// Why not.
pub fn rekey(iked: &mut Iked, message: &Branch<'_>) -> Result<Message, String> {
    let selection = Selection::of(message)?;
    if selection.is_all() {
        return Err("say which: child, ike, child-id or ike-id".to_owned());
    }
    let is_anew = message.text("reauth") == Some("yes");
    let (ike, sadb) = iked.ike().ok_or_else(no_ike)?;
    let selected = selection.select(ike.engine(), |spi| ike.child_id(spi));
    match &selected {
        Selected::Ike(ids) => {
            for id in ids {
                let may = ike.with(sadb, |engine, cx| match is_anew {
                    true => engine.reauthenticate(*id, cx),
                    false => engine.rekey(*id, cx),
                });
                if !may {
                    return Err(format!("IKE SA {}: it is for the peer to authenticate anew", id.0));
                }
            }
        }
        Selected::Children(spis) => {
            for spi in spis {
                ike.with(sadb, |engine, cx| engine.rekey_child(*spi, cx));
            }
        }
    }
    let outcome = if selected.len() > 0 { Ok(()) } else { Err("there is no such SA to rekey") };
    Ok(counted(selected.len(), &[], outcome))
}

/// Waits as long as the client wants to.
fn begin(message: &Branch<'_>, goal: Goal) -> Result<Begun, String> {
    let number = |key: &str, otherwise: i64| match message.text(key) {
        Some(text) => text.parse().map_err(|_| format!("{key} must be a number")),
        None => Ok(otherwise),
    };
    let (timeout, level) = (number("timeout", 0)?, number("loglevel", LEVEL)?);
    if timeout < 0 {
        return Ok(Begun::Done(goal.outcome(Ok(()))));
    }
    let patience = Duration::from_millis(timeout.unsigned_abs());
    // A time that there never will be is no end.
    let deadline = Instant::now().checked_add(patience).filter(|_| timeout > 0);
    Ok(Begun::Waits(Control { goal, deadline: deadline.map(|end| (end, patience)), level, failure: None }))
}

impl Control {
    /// When it is given up.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|(end, _)| end)
    }

    /// Takes what has happened. Whether it is about what it waits for.
    pub fn hear(&mut self, event: &EventReport) -> bool {
        let id = IkeSaId(event.ike_sa);
        match &mut self.goal {
            Goal::IkeUp(of) | Goal::ChildUp(of, ..) if event.what == (What::IkeReplaced { old: of.0 }) => {
                *of = id;
                return true;
            }
            Goal::IkeUp(of) | Goal::ChildUp(of, ..) if *of != id => return false,
            Goal::IkeUp(of) | Goal::ChildUp(of, ..) => {
                if let What::IkeRedirected { new } = event.what {
                    *of = IkeSaId(new);
                }
            }
            Goal::Gone(Selected::Ike(ids), _) if !ids.contains(&id) => return false,
            Goal::Gone(Selected::Children(spis), _) => {
                let is_of = |what: &What| match what {
                    What::ChildDown { spi_in, .. } => {
                        spis.iter().any(|spi| portcullis_sadb::Spi(*spi).to_string() == *spi_in)
                    }
                    _ => false,
                };
                return is_of(&event.what);
            }
            _ => {}
        }
        match (&mut self.goal, &event.what) {
            (Goal::ChildUp(_, name, is_up), What::ChildUp { child }) if child == name => *is_up = true,
            (Goal::ChildUp(_, name, _), What::ChildFailed { child }) if child == name => {
                self.failure = Some(event.text.clone());
            }
            (Goal::IkeUp(_) | Goal::ChildUp(..), What::IkeDown { .. } | What::IkeFailed) => {
                self.failure = Some(event.text.clone())
            }
            _ => {}
        }
        true
    }

    /// The answer, if it has come true, cannot any more, or has taken too long.
    pub fn outcome(&self, ike: Option<&Ike>, now: Instant) -> Option<Message> {
        let Some(ike) = ike else {
            return Some(self.goal.outcome(Err("there is no IKE")));
        };
        let engine = ike.engine();
        let is_done = match &self.goal {
            Goal::ChildUp(_, _, is_up) => *is_up,
            Goal::IkeUp(id) => engine.ike_sa(*id).is_some_and(|sa| *sa.phase() == Phase::Established),
            Goal::Gone(Selected::Ike(ids), _) => ids.iter().all(|id| engine.ike_sa(*id).is_none()),
            Goal::Gone(Selected::Children(spis), _) => {
                !engine.ike_sas().flat_map(|sa| sa.children()).any(|child| spis.contains(&child.spi_in))
            }
        };
        let is_lost = match &self.goal {
            Goal::IkeUp(id) | Goal::ChildUp(id, ..) => engine.ike_sa(*id).is_none() && !ike.is_waiting(*id),
            Goal::Gone(..) => false,
        };
        if is_done {
            return Some(self.goal.outcome(Ok(())));
        }
        if let Some(why) = &self.failure {
            return Some(self.goal.outcome(Err(why)));
        }
        if is_lost {
            return Some(self.goal.outcome(Err("the IKE SA is gone")));
        }
        let (_, patience) = self.deadline.filter(|(end, _)| *end <= now)?;
        Some(self.goal.outcome(Err(&format!("it is not done after {} ms", patience.as_millis()))))
    }
}

impl Goal {
    fn outcome(&self, outcome: Result<(), &str>) -> Message {
        match self {
            Goal::Gone(_, matches) => {
                let gone = if outcome.is_ok() { *matches } else { 0 };
                counted(*matches, &[("terminated", gone)], outcome)
            }
            _ => Message::outcome(outcome),
        }
    }
}

/// The answer of what is about several SAs.
pub(super) fn counted(matches: usize, more: &[(&str, usize)], outcome: Result<(), &str>) -> Message {
    let mut writer = Writer::default();
    writer.value("success", if outcome.is_ok() { "yes" } else { "no" });
    writer.value("matches", matches.to_string());
    for (key, n) in more {
        writer.value(key, n.to_string());
    }
    if let Err(why) = outcome {
        writer.value("errmsg", why);
    }
    writer.finish().unwrap_or_else(|_| Message::outcome(outcome))
}
