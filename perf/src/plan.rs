//! The capacity planner: what a question of traffic and tunnels takes, by what a host has been measured to cost.
//!
//! All of it is arithmetic. A [`Profile`] says what a packet costs on a host; it is [fitted](fit) from [`Sample`]s, and
//! knows how far it can be trusted. A [`Question`] says what is to be carried, an [`Answer`] what that takes of each
//! [`Resource`](answer::Resource), and which of them is full first. Costs only grow with what a packet has more of, since no
//! coefficient of a fit is negative: so more traffic, longer packets or more SAs never take less.
//!
//! Where it is not sure it says so: an answer is made with the upper end of what a fit predicts, at 95 %, and what lies
//! outside of what was measured is named.

pub mod answer;
pub mod boxes;
pub mod calibrate;
pub mod command;
pub mod fit;
pub mod model;
pub mod packet;
pub mod predictions;
pub mod profile;
pub mod question;
pub mod report;
pub mod shares;
#[cfg(test)]
mod tests;
mod units;
pub mod what_if;

pub use answer::{Answer, answer};
pub use profile::{Profile, Sample};
pub use question::{Question, QuestionError};
