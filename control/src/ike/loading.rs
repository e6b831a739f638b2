//! Connections, secrets and what else is configured while IKE runs: by the file anew, or piece by piece by VICI.
//!
//! What is the same as before is not touched. SAs of what has changed or is gone stay, as they are, and as strongSwan has it so does what
//! replaces a child SA: with other selectors it could be for less than is in use, which RFC 7296 §2.9.2 forbids. New ones are of the
//! new configuration, under an IKE SA that is there, too. But what was to be up from the start, and is another or gone, ends.

use super::{FILE, Ike, IkeError, Unusable, configured, credentials::Credentials, eap, names::names_of};
use crate::swanctl::{
    self,
    authority::Authority,
    child::{Child, Mode},
    connection::Connection,
    diff::{Changes, Diff},
    pool::Pool,
    secret::{Secrets, Shared},
};
use portcullis_ike::connection as ike;
use portcullis_sadb::Sadb;
use std::{collections::HashMap, fs, os::unix::fs::PermissionsExt, path::Path, sync::Arc};

impl Ike {
    /// All that is configured now.
    pub fn configured(&self) -> &swanctl::Configuration {
        &self.swanctl
    }

    /// Reads the file anew. What it has otherwise than when it was last read takes the place of what is there; what VICI
    /// has loaded since then stays. Pools that peers have addresses of are as before until it is read again: why, of each.
    ///
    /// # Errors
    /// What of it cannot be used; then all is as before.
    pub fn reload(&mut self, directory: &Path, sadb: &mut Sadb) -> Result<Vec<String>, IkeError> {
        let (to, credentials) = self.usable(directory)?;
        self.credentials = credentials;
        let from = std::mem::replace(&mut self.file, to.clone());
        let Diff { connections, children, shared, passphrases: _, pools, authorities } =
            Diff::between(&from, &to);
        let (new, of_children) = (present(&connections), present(&children));
        let gone = children.gone.iter().map(|of| &of.connection.name);
        let names: Vec<_> =
            new.map(|c| &c.name).chain(of_children.map(|of| &of.connection.name)).chain(gone).collect();
        for connection in to.connections.iter().filter(|c| names.contains(&&c.name)) {
            self.load_connection(connection.clone(), sadb)?;
        }
        for connection in &connections.gone {
            self.unload_connection(&connection.name, sadb);
        }
        for key in present(&shared) {
            self.load_shared((*key).clone())?;
        }
        for key in &shared.gone {
            self.unload_shared(&key.name);
        }
        let mut held = vec![];
        for pool in present(&pools) {
            // What is wrong in itself was seen before; of this, people have addresses.
            if let Err(why) = self.load_pool((*pool).clone()) {
                held.push((&pool.name, format!("it is as before: {why}")));
            }
        }
        let is_there = |pool: &&&Pool| self.swanctl.pools.iter().any(|there| there.name == pool.name);
        let gone: Vec<_> = pools.gone.iter().filter(is_there).collect();
        for pool in gone {
            if let Err(why) = self.unload_pool(&pool.name) {
                held.push((&pool.name, format!("it stays: {why}")));
            }
        }
        for (name, why) in &held {
            tracing::error!("{why}");
            // As if it had not been read: next time it is another again.
            self.file.pools.retain(|pool| pool.name != **name);
            self.file.pools.extend(from.pools.iter().find(|pool| pool.name == **name).cloned());
        }
        let held = held.into_iter().map(|(_, why)| why).collect();
        for authority in present(&authorities) {
            put(&mut self.swanctl.authorities, (*authority).clone(), |authority| &authority.name);
        }
        for gone in &authorities.gone {
            self.swanctl.authorities.retain(|authority| authority.name != gone.name);
        }
        self.swanctl.secrets.passphrases = to.secrets.passphrases;
        self.make_connections();
        Ok(held)
    }

    /// What is in the file now, with its keys and certificates, if it can be used.
    ///
    /// # Errors
    /// What of it cannot be.
    pub fn usable(&self, directory: &Path) -> Result<(swanctl::Configuration, Credentials), IkeError> {
        let to = read(&directory.join(FILE))?;
        let mut credentials = self.credentials.clone();
        credentials.read(directory).map_err(IkeError::Credentials)?;
        for authority in &to.authorities {
            credentials.load_authority(authority).map_err(IkeError::Credentials)?;
        }
        let gone = self.file.authorities.iter().filter(|a| to.authorities.iter().all(|b| a.name != b.name));
        gone.for_each(|authority| credentials.unload_authority(&authority.name));
        configured::configuration(&to, &credentials)?;
        Ok((to, credentials))
    }

    /// Goes on with what was before, and begins what is to be up from the start.
    pub fn begin(&mut self, sadb: &mut Sadb) {
        self.resume(sadb);
        for connection in self.swanctl.connections.clone() {
            self.begin_children(&connection, None, &[], sadb);
        }
    }

    /// Takes a connection in, in the place of one of the same name, and begins what of it is new and to be up.
    ///
    /// # Errors
    /// What of it cannot be used; then all is as before.
    pub fn load_connection(&mut self, connection: Connection, sadb: &mut Sadb) -> Result<(), Unusable> {
        let name = &connection.name;
        let at = self.swanctl.connections.iter().position(|c| c.name == *name);
        let before = at.map(|at| self.swanctl.connections[at].clone());
        if before.as_ref() == Some(&connection) {
            return self.unusable(name).map_or(Ok(()), Err);
        }
        let is_same = |before: &Connection| {
            Connection { children: connection.children.clone(), ..before.clone() } == connection
        };
        let edition = match (before.as_ref(), self.config.connection(name)) {
            (Some(before), Some(present)) if is_same(before) => present.edition,
            _ => self.edition_of(connection.source.mark()).unwrap_or(self.edition + 1),
        };
        configured::shunts(&connection)?;
        let configured = match connection.has_ike() {
            true => Some(Arc::new(self.made(&connection, edition)?)),
            false => None,
        };
        self.edition = self.edition.max(edition);
        // Further child SAs under IKE SAs that are there are of the children that there are now.
        self.engine.follow_connections(configured.as_slice());
        match (configured, self.config.connections.iter().position(|c| c.name == *name)) {
            (Some(configured), Some(at)) => self.config.connections[at] = configured,
            (Some(configured), None) => self.config.connections.push(configured),
            (None, Some(at)) => _ = self.config.connections.remove(at),
            (None, None) => {}
        }
        before.iter().for_each(|before| self.note_source(&before.source));
        match at {
            Some(at) => self.swanctl.connections[at] = connection.clone(),
            None => self.swanctl.connections.push(connection.clone()),
        }
        tracing::info!("connection '{name}' is loaded");
        for child in connection.children.iter().filter(|child| child.mode == Mode::Transport) {
            tracing::warn!(
                "connection '{name}': '{}' has mode = transport, which protects what comes in by a port; what this machine's \
                 own kernel sends goes past it, in clear",
                child.name
            );
        }
        let is_other = |child: &&Child| before.as_ref().is_some_and(|b| !b.children.contains(child));
        connection.children.iter().filter(is_other).for_each(|child| self.note_child(name, &child.name));
        if before.iter().chain([&connection]).any(|c| names_of(c).next().is_some()) {
            self.note_names();
        }
        self.note_connections();
        let ended = before.iter().flat_map(|before| self.end_children(before, Some(&connection), sadb));
        let ended: Vec<_> = ended.collect();
        self.begin_children(&connection, before.as_ref(), &ended, sadb);
        Ok(())
    }

    /// Makes all of them anew, of keys and certificates that may be others, and so do IKE SAs that are of them. Of one that cannot be,
    /// IKE SAs and traps stay, but not what it had of keys and certificates: nothing begins of it until it can be.
    pub(super) fn make_connections(&mut self) {
        let written: HashMap<_, _> = self.swanctl.connections.iter().map(|c| (&*c.name, c)).collect();
        let of = |present: &Arc<ike::Connection>| {
            let written = written.get(&*present.name)?;
            let made = self.made(written, present.edition);
            match &made {
                Err(unusable) if present.is_usable() => {
                    tracing::error!("connection '{}' cannot be used any more: {unusable}", present.name);
                }
                Ok(_) if !present.is_usable() => {
                    tracing::info!("connection '{}' can be used again", present.name);
                }
                _ => {}
            }
            Some(Arc::new(made.unwrap_or_else(|_| present.without_credentials())))
        };
        let made = self.config.connections.iter().map(|present| of(present).unwrap_or(present.clone()));
        self.config.connections = made.collect();
        self.engine.follow_connections(&self.config.connections);
    }

    /// Why a connection cannot be used any more, if that is so.
    pub(super) fn unusable(&self, name: &str) -> Option<Unusable> {
        let present = self.config.connection(name).filter(|present| !present.is_usable())?;
        let written = self.swanctl.connections.iter().find(|c| c.name == name)?;
        self.made(written, present.edition).err()
    }

    /// That of IKE SAs that are of the same connection, and were here before it.
    fn edition_of(&self, mark: u64) -> Option<u64> {
        let connections = self.engine.ike_sas().map(|sa| sa.connection());
        connections.filter(|connection| connection.mark == mark).map(|connection| connection.edition).max()
    }

    /// Forgets a connection; its SAs stay, but for those that were to be up from the start. False if there is none.
    pub fn unload_connection(&mut self, name: &str, sadb: &mut Sadb) -> bool {
        let Some(at) = self.swanctl.connections.iter().position(|c| c.name == name) else { return false };
        let before = self.swanctl.connections.remove(at);
        self.note_source(&before.source);
        self.config.connections.retain(|c| c.name != name);
        self.note_connections();
        tracing::info!(
            "connection '{name}' is unloaded; its SAs stay, but for those of start_action = start"
        );
        self.end_children(&before, None, sadb);
        true
    }

    /// Ends the children that were to be up from the start, and are others now or gone, each with its IKE SA if nothing else is under
    /// that, or to be. The SPIs of their SAs.
    fn end_children(&mut self, before: &Connection, now: Option<&Connection>, sadb: &mut Sadb) -> Vec<u32> {
        let children = now.map(|now| &now.children[..]).unwrap_or_default();
        let is_over = |child: &&Child| child.start_action.start && !children.contains(child);
        let over: Vec<_> = before.children.iter().filter(is_over).map(|child| &child.name).collect();
        let begins = children.iter().any(|child| child.start_action.start);
        // Under an IKE SA of another edition nothing begins.
        let edition = self.config.connection(&before.name).filter(|_| begins).map(|c| c.edition);
        let (mut ike_sas, mut alone, mut ended) = (vec![], vec![], vec![]);
        for sa in self.engine.ike_sas().filter(|sa| sa.connection().name == before.name) {
            let (of, others): (Vec<_>, Vec<_>) =
                sa.children().iter().partition(|child| over.contains(&&child.config.name));
            let of: Vec<_> = of.iter().map(|child| child.spi_in).collect();
            match others.is_empty() && !of.is_empty() && edition != Some(sa.connection().edition) {
                true => ike_sas.push(sa.id()),
                false => alone.extend(&of),
            }
            ended.extend(of);
        }
        for id in ike_sas {
            self.with(sadb, |engine, cx| engine.terminate(id, cx));
        }
        for spi in alone {
            self.with(sadb, |engine, cx| engine.terminate_child(spi, cx));
        }
        ended
    }

    /// Begins the children that are to be up, and are none of those before; an SA that ends is none that is up.
    fn begin_children(
        &mut self,
        connection: &Connection,
        before: Option<&Connection>,
        ended: &[u32],
        sadb: &mut Sadb,
    ) {
        let is_new = |child| before.is_none_or(|before| !before.children.contains(child));
        for child in connection.children.iter().filter(|child| child.start_action.start && is_new(child)) {
            let is_up = self
                .engine
                .ike_sas()
                .filter(|sa| sa.connection().name == connection.name)
                .flat_map(|sa| sa.children())
                .any(|up| up.config.name == child.name && !ended.contains(&up.spi_in));
            if is_up {
                continue;
            }
            self.start(&connection.name, &child.name, sadb);
        }
    }

    /// Takes a shared key in, in the place of one of the same name; one without a name is beside all others.
    ///
    /// # Errors
    /// What of it cannot be used; then all is as before.
    pub fn load_shared(&mut self, shared: Shared) -> Result<(), Unusable> {
        // What can be used is added by itself, so that many take no longer each.
        let (keys, ppks, _) =
            configured::secrets(&Secrets { shared: vec![shared.clone()], passphrases: vec![] })?;
        let all = &mut self.swanctl.secrets.shared;
        if all.contains(&shared) {
            return Ok(());
        }
        match all.iter_mut().find(|other| !shared.name.is_empty() && other.name == shared.name) {
            Some(present) => {
                *present = shared;
                self.make_secrets()
            }
            None => {
                eap::add(Arc::make_mut(&mut self.config.eap_secrets), &shared)?;
                all.push(shared);
                self.config.shared_keys.extend(keys);
                self.config.ppks.extend(ppks);
                Ok(())
            }
        }
    }

    /// Forgets a shared key. False if there is none of this name.
    pub fn unload_shared(&mut self, name: &str) -> bool {
        let is_it = removed(&mut self.swanctl.secrets.shared, |shared| shared.name == name);
        // Those that are left have been keys before.
        let _ = self.make_secrets();
        is_it
    }

    /// Forgets all shared keys.
    pub fn clear_secrets(&mut self) {
        self.swanctl.secrets.shared.clear();
        self.config.shared_keys.clear();
        self.config.ppks.clear();
        self.config.eap_secrets = Arc::default();
    }

    fn make_secrets(&mut self) -> Result<(), Unusable> {
        let config = &mut self.config;
        (config.shared_keys, config.ppks, config.eap_secrets) = configured::secrets(&self.swanctl.secrets)?;
        Ok(())
    }

    /// Takes an authority in, in the place of one of the same name.
    ///
    /// # Errors
    /// What of it cannot be used; then all is as before.
    pub fn load_authority(&mut self, authority: Authority) -> Result<(), String> {
        self.credentials.load_authority(&authority)?;
        put(&mut self.swanctl.authorities, authority, |authority| &authority.name);
        self.make_connections();
        Ok(())
    }

    /// Forgets an authority. False if there is none.
    pub fn unload_authority(&mut self, name: &str) -> bool {
        self.credentials.unload_authority(name);
        let was_there = removed(&mut self.swanctl.authorities, |authority| authority.name == name);
        self.make_connections();
        was_there
    }

    /// Keys and certificates.
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// Keys and certificates, to be changed. Connections are of what there is then.
    pub fn change_credentials<T>(&mut self, change: impl FnOnce(&mut Credentials) -> T) -> T {
        let changed = change(&mut self.credentials);
        self.make_connections();
        changed
    }
}

/// Reads the file, if none but its owner and group may.
pub(super) fn read(file: &Path) -> Result<swanctl::Configuration, IkeError> {
    let swanctl = swanctl::Configuration::read(file)?;
    let mode = fs::metadata(file)?.permissions().mode() & 0o7777;
    if mode & 0o007 != 0 && swanctl.secrets != Secrets::default() {
        return Err(IkeError::Mode { file: file.to_owned(), mode });
    }
    Ok(swanctl)
}

/// What is there that was not, or was another.
fn present<T>(changes: &Changes<T>) -> impl Iterator<Item = &T> {
    changes.new.iter().chain(changes.changed.iter().map(|(_, now)| now))
}

fn removed<T>(all: &mut Vec<T>, is_it: impl Fn(&T) -> bool) -> bool {
    let before = all.len();
    all.retain(|one| !is_it(one));
    all.len() < before
}

fn put<T>(all: &mut Vec<T>, new: T, name: impl Fn(&T) -> &String) {
    match all.iter_mut().find(|one| name(one) == name(&new)) {
        Some(present) => *present = new,
        None => all.push(new),
    }
}
