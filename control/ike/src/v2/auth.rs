//! IKE_AUTH (RFC 7296 §1.2, §2.15): both ends prove who they are, and the first child SA is made.
//!
//! ```text
//!  initiator                                       responder
//!  SK {IDi, [IDr], AUTH, SAi2, TSi, TSr, N...} ──▶
//!                                              ◀── SK {IDr, AUTH, SAr2, TSi, TSr, N...}
//! ```

use super::{
    child::{Agreed, ChildError, Install, Offer, Place},
    contacts::Ids,
    context::Context,
    ike_sa::{Asked, Closed, IkeSa, Phase, Task},
    informational,
    output::{ChildChange, Event, Output},
    ppk,
    rekey_ike::Legacy,
};
use crate::proposal::Agreement;
use crate::{
    connection::{Child, Childless, Connection, Unique},
    crypto::{
        Secret, auth,
        keys::{Keys, Nonces, Role},
    },
    identity::{Fit, IdPattern},
    message::{
        AuthMethod, Authentication, ExchangeType, IdType, Identification, Notify, NotifyType, Payload,
        Payloads,
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

/// What an initiator has asked.
#[derive(Debug)]
pub(super) struct Question {
    mine: Identification,
    child: Option<Offer>,
    /// Without the PPK, if the peer may have none.
    plain: Option<Keys>,
}

/// The identity of an address.
fn id_of(address: IpAddr) -> Identification {
    match address {
        IpAddr::V4(ip) => Identification::new(IdType::ID_IPV4_ADDR, &ip.octets()),
        IpAddr::V6(ip) => Identification::new(IdType::ID_IPV6_ADDR, &ip.octets()),
    }
}

impl IkeSa {
    /// The initiator proves who it is.
    pub(super) fn begin_auth(&mut self, cx: &mut Context<'_>) {
        let connection = self.connection.clone();
        let mine = connection.local_id.identity().unwrap_or_else(|| id_of(self.path.local.ip()));
        let theirs = connection.remote_id.identity().unwrap_or_else(|| id_of(self.path.peer.ip()));
        let Some(key) = cx.config.shared_key(&mine, &theirs) else {
            return self.close(Closed::Configured("there is no shared key for this connection"), cx);
        };
        let without_ppk = self.proof(Role::Initiator, &mine, key);
        let plain = self.mix_ppk(cx);
        let Some(proof) = self.proof(Role::Initiator, &mine, key) else { return };
        let mut payloads = vec![Payload::IdInitiator(mine.clone())];
        payloads.extend(connection.remote_id.identity().map(Payload::IdResponder));
        payloads.push(Payload::Authentication(by_shared_key(&proof)));
        // RFC 7296 §2.4
        let ids = (mine, theirs);
        let is_only = self.contacts.others(&ids, self.id).is_empty();
        let says_so = is_only && connection.unique != Unique::Never;
        let notify = || Payload::Notify(Notify::new(NotifyType::INITIAL_CONTACT, &[]));
        payloads.extend(says_so.then(notify));
        let path = (self.path.local, self.path.peer);
        let child = self.first_child().and_then(|config| Offer::new(&config, false, path, cx));
        if child.is_none() && !self.may_be_childless {
            return self.close(Closed::Configured("the peer needs a child SA, and there is none"), cx);
        }
        payloads.extend(child.iter().flat_map(Offer::payloads));
        payloads.extend(self.ppk_notifies(without_ppk.as_ref()));
        payloads.extend(self.mobike_notifies());
        self.ask(ExchangeType::IKE_AUTH, &Payloads(payloads), cx);
        self.asked = Some(Asked::Auth(Box::new(Question { mine: ids.0, child, plain })));
    }

    /// The child SA that IKE_AUTH makes. Without one, the peer must be able to do so (RFC 6023 §3).
    fn first_child(&mut self) -> Option<Arc<Child>> {
        if !self.may_be_childless && self.connection.childless != Childless::Force {
            return self.wanted.take().or_else(|| self.connection.children.first().cloned());
        }
        match self.connection.childless {
            Childless::Never | Childless::Allow => self.wanted.take(),
            Childless::Prefer | Childless::Force => {
                self.tasks.extend(self.wanted.take().map(Task::Child));
                None
            }
        }
    }

    /// What becomes of others of the same two, or of this one.
    fn keep_unique(&mut self, connection: &Connection, ids: &Ids, payloads: &Payloads) -> Result<(), Closed> {
        let others = self.contacts.others(ids, self.id);
        let is_only = payloads.has_notify(NotifyType::INITIAL_CONTACT);
        match connection.unique {
            Unique::Never => return Ok(()),
            Unique::No | Unique::Keep if others.is_empty() => {}
            Unique::No if !is_only => return Ok(()),
            Unique::Keep if !is_only => return Err(Closed::NotUnique(ids.1.to_string())),
            _ => {}
        }
        // RFC 7296 §2.4: what the peer has not got any more, it need not be told of.
        self.legacies.extend(others.into_iter().map(|other| Legacy::Superseded(other, !is_only)));
        Ok(())
    }

    /// The responder has answered.
    pub(super) fn auth_answered(&mut self, question: Question, payloads: &Payloads, cx: &mut Context<'_>) {
        let Question { mine, child, plain } = question;
        let (Some(theirs), Some(said)) = (payloads.id_responder(), payloads.authentication()) else {
            let closed =
                payloads.error().map_or(Closed::Missing("IDr or AUTH payload"), |n| Closed::Peer(n.kind));
            return self.close(closed, cx);
        };
        let verified = self.settle_ppk(plain, payloads);
        let verified = verified.and_then(|()| self.verify(Role::Responder, &mine, theirs, said, cx));
        let connection = self.connection.clone();
        let verified = verified.and_then(|()| match connection.remote_id.fits(theirs) {
            Some(_) => Ok(()),
            None => {
                Err(Closed::Identity { found: theirs.to_string(), wanted: connection.remote_id.to_string() })
            }
        });
        if let Err(closed) = verified {
            return self.refuse_peer(closed, cx);
        }
        let installed = child.map(|offer| {
            let name = offer.config.name.clone();
            (name, offer.accept(payloads).map(|agreed| self.installed(agreed, Role::Initiator, cx)))
        });
        self.learn_mobike(payloads);
        self.establish(mine, theirs.clone(), cx);
        match installed {
            Some((_, Ok(Some(install)))) => {
                let up = self.put_child(install, cx);
                self.event(up, cx);
            }
            Some((name, Err(error))) => {
                self.child_failed(&name, &error, cx);
                // It may have installed what we do not want.
                if payloads.security_association().is_some() {
                    self.ask_later(Task::Delete, cx);
                }
            }
            _ => {}
        }
    }

    /// The initiator proves who it is; so do we.
    pub(super) fn answer_auth(&mut self, payloads: &Payloads, cx: &mut Context<'_>) {
        let exchange = ExchangeType::IKE_AUTH;
        let Some(theirs) = payloads.id_initiator() else {
            self.answer_error(exchange, NotifyType::INVALID_SYNTAX, cx);
            return self.close(Closed::Missing("IDi payload"), cx);
        };
        let found = self.connection_for(theirs, payloads.id_responder(), cx);
        let verified = found.and_then(|(connection, mine)| {
            let said = payloads.authentication().ok_or(Closed::Missing("AUTH payload"))?;
            let without_ppk = self.answer_ppk(&connection, payloads, said.method, cx)?;
            self.verify(Role::Initiator, &mine, theirs, without_ppk.as_ref().unwrap_or(said), cx)?;
            if connection.childless == Childless::Never && payloads.security_association().is_none() {
                return Err(Closed::Missing("SA payload, and the connection needs a child SA"));
            }
            self.keep_unique(&connection, &(mine.clone(), theirs.clone()), payloads)?;
            Ok((connection, mine))
        });
        let (connection, mine) = match verified {
            Ok(verified) => verified,
            Err(closed) => {
                // RFC 7296 §2.21.2
                self.answer_error(exchange, NotifyType::AUTHENTICATION_FAILED, cx);
                return self.close(closed, cx);
            }
        };
        let proof =
            cx.config.shared_key(&mine, theirs).and_then(|key| self.proof(Role::Responder, &mine, key));
        let Some(proof) = proof else { return };
        self.connection = connection.clone();
        let mut answer =
            vec![Payload::IdResponder(mine.clone()), Payload::Authentication(by_shared_key(&proof))];
        answer.extend(self.has_ppk.then(ppk::taken_notify));
        self.learn_mobike(payloads);
        answer.extend(self.mobike.is_used.then(|| self.mobike_notifies()).into_iter().flatten());
        let path = (self.path.local, self.path.peer);
        // RFC 6023 §3: without an SA payload it wants no child.
        let child = payloads.security_association().map(|_| match connection.childless {
            Childless::Force => Err(ChildError::Full),
            _ => Agreed::select((&connection.children, connection.order), false, payloads, path, cx),
        });
        let (install, failed) = match child {
            Some(Ok(agreed)) => {
                answer.extend(agreed.payloads());
                (self.installed(agreed, Role::Responder, cx), None)
            }
            Some(Err(error)) => {
                answer.push(Payload::Notify(Notify::new(error.notify(), &[])));
                (None, Some(error))
            }
            None => (None, None),
        };
        // What comes in is to be opened as soon as the peer has the answer.
        let up = install.map(|install| self.put_child(install, cx));
        let theirs = theirs.clone();
        self.answer(exchange, &Payloads(answer), cx);
        self.establish(mine, theirs, cx);
        up.into_iter().for_each(|up| self.event(up, cx));
        if let Some(error) = failed {
            self.child_failed(&connection.name, &error, cx);
        }
    }

    /// The connection for a peer, and who we are to it: of those that its addresses fit, the one that fits best who it says
    /// to be, and asks us to be.
    fn connection_for(
        &self,
        theirs: &Identification,
        asked: Option<&Identification>,
        cx: &Context<'_>,
    ) -> Result<(Arc<Connection>, Identification), Closed> {
        let agreement = self.agreement.as_ref();
        let fits = |connection: &Arc<Connection>| {
            // What was agreed on before it was known who it is must be what this one allows.
            let allows =
                |agreed: &Agreement| connection.proposals.select(&[agreed.answer(&[])], connection.order);
            agreement.and_then(allows)?;
            let mine = connection.local_id.identity().unwrap_or_else(|| id_of(self.path.local.ip()));
            let remote = connection.remote_id.fits(theirs)?;
            let local = match asked {
                Some(asked) if connection.local_id.fits(asked).is_none() && *asked != mine => return None,
                Some(_) => Fit::Exact,
                None => Fit::Any,
            };
            Some((remote, local, mine))
        };
        let candidates = cx.config.between(self.path.local, self.path.peer);
        let found =
            candidates.iter().filter_map(|c| fits(c).map(|(remote, local, mine)| (remote, local, mine, c)));
        // Of equals the first.
        let best = found.rev().max_by_key(|(remote, local, ..)| (*remote, *local));
        let wanted = || candidates.iter().map(|c| c.remote_id.to_string()).collect::<Vec<_>>().join(" or ");
        best.map(|(_, _, mine, connection)| (connection.clone(), mine))
            .ok_or_else(|| Closed::Identity { found: theirs.to_string(), wanted: wanted() })
    }

    /// AUTH of an end by a shared key.
    fn proof(&self, who: Role, id: &Identification, key: &Secret) -> Option<Secret> {
        let (keys, init) = (self.keys.as_ref()?, self.init.as_ref()?);
        let (message, nonce) = match who {
            Role::Initiator => (&init.request, &init.nr),
            Role::Responder => (&init.response, &init.ni),
        };
        let prf = keys.suite().prf();
        let octets = auth::signed_octets(prf, message, nonce, keys.sk_p(who), &id.body(), &init.int_auth());
        Some(auth::by_shared_key(prf, key.bytes(), &octets))
    }

    /// Whether the peer, which is `who`, has proven to be who it says.
    fn verify(
        &self,
        who: Role,
        mine: &Identification,
        theirs: &Identification,
        said: &Authentication,
        cx: &Context<'_>,
    ) -> Result<(), Closed> {
        let wrong = |why| Closed::Authentication { who: theirs.to_string(), why };
        if said.method != AuthMethod::SHARED_KEY {
            return Err(wrong("it has another method than the connection"));
        }
        // Whoever shares a key with us would be taken for us.
        if IdPattern::from(mine).fits(theirs).is_some() {
            return Err(wrong("it says to be us"));
        }
        let key = cx.config.shared_key(mine, theirs).ok_or(wrong("there is no shared key for it"))?;
        match self.proof(who, theirs, key) {
            Some(proof) if proof == Secret::copy_of(&said.data) => Ok(()),
            _ => Err(wrong("it has another shared key")),
        }
    }

    /// Tells the peer, which thinks that the IKE SA is there, that it is not who it should be (RFC 7296 §2.21.2).
    fn refuse_peer(&mut self, why: Closed, cx: &mut Context<'_>) {
        self.phase = Phase::Closing;
        let notify = Notify::new(NotifyType::AUTHENTICATION_FAILED, &[]);
        self.ask(ExchangeType::INFORMATIONAL, &Payloads(vec![Payload::Notify(notify)]), cx);
        self.asked = Some(Asked::Informational(informational::Question::Refused(why)));
    }

    /// The first child SA, with its keys.
    fn installed(&self, agreed: Agreed, role: Role, cx: &mut Context<'_>) -> Option<Install> {
        self.with_keys(agreed, role, &[], self.init.as_ref()?.nonces(), cx)
    }

    /// A child SA with its keys, by the nonces of the exchange that makes it, in which we have this role.
    pub(super) fn with_keys(
        &self,
        agreed: Agreed,
        role: Role,
        secrets: &[Secret],
        nonces: Nonces<'_>,
        cx: &mut Context<'_>,
    ) -> Option<Install> {
        let at = (cx.now_ms, u32::from_be_bytes(cx.random()));
        Some(agreed.install(self.keys.as_ref()?, role, secrets, nonces, self.place(), at))
    }

    /// Where packets of child SAs go.
    pub(super) fn place(&self) -> Place<'_> {
        let (local, peer): (SocketAddr, SocketAddr) = (self.path.local, self.path.peer);
        let (is_in_udp, nat) = (self.is_in_udp(), self.nat.unwrap_or_default());
        Place { connection: &self.connection.name, local, peer, is_in_udp, nat }
    }

    /// The datapath gets a child SA; what is to be told of it.
    pub(super) fn put_child(&mut self, install: Install, cx: &mut Context<'_>) -> Event {
        let (name, spi_in) = (install.sa.config.name.clone(), install.sa.spi_in);
        let up = match install.replaces {
            Some(old) => Event::ChildReplaced(name, old, spi_in),
            None => Event::ChildUp(name, spi_in),
        };
        self.children.push(install.sa.clone());
        cx.out.push_back(Output::Child(ChildChange::Install(Box::new(install))));
        up
    }
}

fn by_shared_key(proof: &Secret) -> Authentication {
    Authentication { method: AuthMethod::SHARED_KEY, data: proof.bytes().to_vec() }
}
