//! Extended authentication (draft-beaulieu-ike-xauth-02): behind phase 1, a user says its name and password.
//!
//! ```text
//!  gateway                                         client
//!  REQUEST: name, password              ──▶
//!                                       ◀──        REPLY: name, password
//!  SET: status                          ──▶
//!                                       ◀──        ACK
//! ```
//!
//! Until then it is half-open: there are no child SAs, no addresses, and no other ISAKMP SA goes for it.
//!
//! # Dangers
//! - The password goes to whoever has proven to be the gateway in phase 1. Where all clients share a key, any of them can.
//! - Whether there is a user of a name is not told: one who is not there fails as a wrong password does.

use super::{ike_sa::IkeSa, proof::Concluded, transaction::Answer};
use crate::{
    closed::Closed,
    connection::Xauth,
    contacts::Ids,
    context::Context,
    crypto::{Secret, keys::Role},
    eap::EapError,
    identity::IdPattern,
    ike_sa::Phase,
    message::{
        Attribute, AttributeType, AttributeValue, IdType, Identification,
        isakmp::{Attributes, AttributesType, XauthAttributeType},
    },
    proof::Unproven,
};

/// Octets of a name, at most.
const LONGEST_NAME: usize = 1024;

/// Of [`XauthAttributeType::XAUTH_TYPE`]: a name and a password.
const GENERIC: u16 = 0;
/// Of [`XauthAttributeType::XAUTH_STATUS`].
const FAIL: u16 = 0;
const OK: u16 = 1;

/// Behind phase 1, until it is known who the user is.
#[derive(Debug)]
pub(super) struct Pending {
    concluded: Concluded,
    /// Who the user of the peer is, or why it is nobody, once it has said so.
    user: Option<Result<User, Closed>>,
}

/// Who a peer's user is.
#[derive(Clone, Debug)]
pub(super) struct User {
    pub name: String,
    id: Identification,
}

impl User {
    fn new(name: &str) -> User {
        let id = name.parse::<IdPattern>().ok().and_then(|pattern| pattern.identity());
        let id = id.unwrap_or_else(|| Identification::new(IdType::ID_KEY_ID, name.as_bytes()));
        User { name: name.to_owned(), id }
    }
}

fn long(kind: XauthAttributeType, value: &[u8]) -> Attribute {
    Attribute { kind: AttributeType(kind.0), value: AttributeValue::Long(value.to_vec()) }
}

fn short(kind: XauthAttributeType, value: u16) -> Attribute {
    Attribute { kind: AttributeType(kind.0), value: AttributeValue::Short(value) }
}

/// The octets of what is said of a user. Some have a zero behind them.
fn octets(attributes: &Attributes, kind: XauthAttributeType) -> Option<&[u8]> {
    match &attributes.of_user(kind)?.value {
        AttributeValue::Long(octets) => Some(octets.strip_suffix(&[0]).unwrap_or(octets)),
        AttributeValue::Short(_) => None,
    }
}

fn number(attributes: &Attributes, kind: XauthAttributeType) -> Option<u64> {
    attributes.of_user(kind)?.as_number()
}

impl IkeSa {
    /// Who the peer's user must be, if it has one.
    fn wanted_user(&self) -> Option<&IdPattern> {
        match self.connection.ikev1.as_ref()?.xauth.as_ref()? {
            Xauth::Theirs(wanted) => Some(wanted),
            Xauth::Ours(_) => None,
        }
    }

    /// Whether phase 1 is not all that there is to prove.
    pub(super) fn has_user(&self) -> bool {
        self.suite.as_ref().is_some_and(|suite| suite.user.is_some())
    }

    /// Whether it is for the peer's user to prove who it is.
    pub(super) fn asks_user(&self) -> bool {
        self.suite.as_ref().is_some_and(|suite| suite.user.is_some_and(|role| role != self.role))
    }

    /// Who is at its ends, by which it is told whether there is another with the same: its user, if there is one.
    pub(crate) fn contact_ids(&self) -> Option<Ids> {
        let (mine, theirs) = self.ids.clone()?;
        Some((mine, self.user.as_ref().map_or(theirs, |user| user.id.clone())))
    }

    /// Phase 1 is over: the user is asked, or we wait to be.
    pub(super) fn begin_user(&mut self, concluded: Concluded, cx: &mut Context<'_>) {
        self.pending = Some(Box::new(Pending { concluded, user: None }));
        if self.role == Role::Initiator {
            self.deadline_ms = cx.now_ms + cx.config.half_open_ms;
        }
        if self.asks_user() {
            use XauthAttributeType as Kind;
            let all = [Kind::XAUTH_USER_NAME, Kind::XAUTH_USER_PASSWORD].map(|kind| long(kind, &[])).into();
            let request = Attributes { kind: AttributesType::ISAKMP_CFG_REQUEST, identifier: 0, all };
            self.transact(request, cx);
        }
    }

    /// The peer says that it knows no other with us, before its user is known.
    pub(super) fn note_only(&mut self) -> bool {
        self.pending.iter_mut().for_each(|pending| pending.concluded.is_only = true);
        self.pending.is_some()
    }

    /// A user says who it is: it is told what comes of it.
    pub(super) fn hear_user(&mut self, reply: &Attributes, cx: &mut Context<'_>) {
        let name = octets(reply, XauthAttributeType::XAUTH_USER_NAME).unwrap_or_default();
        let name = str::from_utf8(name).ok().filter(|name| name.len() <= LONGEST_NAME).unwrap_or_default();
        let password = octets(reply, XauthAttributeType::XAUTH_USER_PASSWORD).unwrap_or_default();
        let user = User::new(name);
        // All of it, whatever is wrong: nobody is to see by the time which it is.
        let is_proven = cx.config.eap_secrets.is_password(name, password);
        let is_wanted = self.wanted_user().is_some_and(|wanted| wanted.fits(&user.id).is_some());
        let is_only = self.pending.as_ref().is_some_and(|pending| pending.concluded.is_only);
        let ids = self.ids.clone().map(|(mine, _)| (mine, user.id.clone()));
        let why = match ids {
            Some(ids) if is_proven && is_wanted && !name.is_empty() => {
                self.may_be(&ids, &self.connection, is_only).err()
            }
            _ => {
                let why = Unproven::Eap(EapError::Password(name.to_owned()));
                Some(Closed::Authentication { who: self.peer_name(), why })
            }
        };
        let status = if why.is_none() { OK } else { FAIL };
        self.doubt = why.clone().map(Box::new);
        let Some(pending) = &mut self.pending else { return };
        pending.user = Some(why.map_or(Ok(user), Err));
        let all = vec![short(XauthAttributeType::XAUTH_STATUS, status)];
        self.transact(Attributes { kind: AttributesType::ISAKMP_CFG_SET, identifier: 0, all }, cx);
    }

    pub(super) fn peer_name(&self) -> String {
        self.ids.as_ref().map_or_else(|| self.path.peer.ip().to_string(), |(_, theirs)| theirs.to_string())
    }

    /// The peer knows what has come of its user.
    pub(super) fn status_known(&mut self, cx: &mut Context<'_>) {
        match self.pending.as_mut().and_then(|pending| pending.user.take()) {
            Some(Ok(user)) => {
                self.user = Some(user);
                self.conclude_user(cx);
            }
            Some(Err(why)) => self.delete(why, cx),
            None => {}
        }
    }

    /// Who the users are is known: it is established.
    pub(super) fn conclude_user(&mut self, cx: &mut Context<'_>) {
        if let Some(pending) = self.pending.take() {
            self.be_established(pending.concluded, cx);
        }
    }

    /// The peer asks who our user is, if it is its turn to.
    pub(super) fn say_user(&mut self, request: &Attributes, cx: &Context<'_>) -> Option<Answer> {
        use XauthAttributeType as Kind;
        if self.pending.is_none() || self.asks_user() || self.phase != Phase::Connecting {
            return None;
        }
        let Some(Xauth::Ours(name)) = self.connection.ikev1.as_ref().and_then(|v1| v1.xauth.as_ref()) else {
            return None;
        };
        let mine = || self.ids.as_ref().map_or_else(String::new, |(mine, _)| mine.to_string());
        let name = name.clone().unwrap_or_else(mine);
        let refuse = |why| {
            let why = Closed::Authentication { who: name.clone(), why: Unproven::Eap(why) };
            Some(Answer { all: vec![short(Kind::XAUTH_STATUS, FAIL)], then: Some(Err(why)) })
        };
        let kind = number(request, Kind::XAUTH_TYPE).unwrap_or(GENERIC.into());
        if kind != u64::from(GENERIC) {
            return refuse(EapError::Malformed("type of XAuth: it is not a password"));
        }
        let Some(password) = cx.config.eap_secrets.text_of(&name) else {
            return refuse(EapError::NoSecret(name.clone()));
        };
        // What it has not asked for, it does not get.
        let of = |attribute: &Attribute| match XauthAttributeType(attribute.kind.0) {
            kind @ Kind::XAUTH_TYPE => Some(short(kind, GENERIC)),
            kind @ Kind::XAUTH_USER_NAME => Some(long(kind, name.as_bytes())),
            kind @ Kind::XAUTH_USER_PASSWORD => Some(long(kind, Secret::bytes(password))),
            _ => None,
        };
        Some(Answer { all: request.all.iter().filter_map(of).collect(), then: None })
    }

    /// The peer says what has come of our user, if it is its turn to.
    pub(super) fn hear_status(&mut self, set: &Attributes) -> Option<Answer> {
        if self.pending.is_none() || self.asks_user() {
            return None;
        }
        let status = number(set, XauthAttributeType::XAUTH_STATUS)?;
        let who = || self.ids.as_ref().map_or_else(String::new, |(mine, _)| mine.to_string());
        let then = match status == u64::from(OK) {
            true => Ok(()),
            false => {
                let why = Unproven::Eap(EapError::Refused(String::new()));
                Err(Closed::Authentication { who: who(), why })
            }
        };
        let all = vec![Attribute {
            value: AttributeValue::Long(vec![]),
            ..short(XauthAttributeType::XAUTH_STATUS, 0)
        }];
        Some(Answer { all, then: Some(then) })
    }
}

crate::kept::keep!(User { name, id });
