//! What changes with a question: one or two of its options take one value after the other.

use super::{
    answer::{Answer, answer},
    profile::Profile,
    question::{Question, QuestionError},
};
use serde::{Serialize, Serializer};

/// An option and what it is to say in turn.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Vary {
    /// The option's name.
    pub option: String,
    /// Its values.
    pub values: Vec<String>,
}

/// What one case takes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Case {
    /// What the varied options say, in their order.
    pub values: Vec<String>,
    /// What it takes, or why that cannot be said.
    #[serde(serialize_with = "answer_or_error")]
    pub answer: Result<Answer, QuestionError>,
}

/// All cases: of two options, for each value of the first all values of the second.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct WhatIf {
    /// What is varied.
    pub vary: Vec<Vary>,
    /// What comes of it.
    pub cases: Vec<Case>,
}

impl Vary {
    /// As it is typed: `tunnels=1 1000 100000`.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn parse(text: &str) -> Result<Vary, String> {
        let say = "say an option and its values with spaces between, such as --vary 'tunnels=1 1000 100000'";
        let (option, values) =
            text.split_once('=').ok_or_else(|| format!("--vary '{text}': no '='; {say}"))?;
        let option = option.trim().trim_start_matches("--").to_owned();
        let values: Vec<String> = values.split_whitespace().map(str::to_owned).collect();
        match values.is_empty() {
            true => Err(format!("--vary '{text}': no values; {say}")),
            false => Ok(Vary { option, values }),
        }
    }
}

impl WhatIf {
    /// The cases of a question. What is wrong with the question in one of them stands in that case, but there have to be
    /// such options and values.
    ///
    /// # Errors
    /// Those of [`Question::set`].
    pub fn new(question: &Question, vary: Vec<Vary>, profile: &Profile) -> Result<WhatIf, QuestionError> {
        let mut questions = vec![(vec![], question.clone())];
        for Vary { option, values } in &vary {
            let mut next = vec![];
            for (said, question) in questions {
                for value in values {
                    let mut question = question.clone();
                    question.set(option, value)?;
                    next.push(([said.as_slice(), std::slice::from_ref(value)].concat(), question));
                }
            }
            questions = next;
        }
        let case = |(values, question): (_, Question)| Case { values, answer: answer(&question, profile) };
        Ok(WhatIf { vary, cases: questions.into_iter().map(case).collect() })
    }
}

/// An answer as it is, and an error as an object with its text.
fn answer_or_error<S: Serializer>(
    answer: &Result<Answer, QuestionError>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match answer {
        Ok(answer) => answer.serialize(serializer),
        Err(error) => serde_json::json!({ "error": error.to_string() }).serialize(serializer),
    }
}
