//! Client traffic: who sends what, from where, how fast.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Located, Moment, Origin, Span, check};

/// A stream of client requests: an `open` or a `closed` model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Traffic {
    /// The name that steps and expectations use.
    pub name: String,
    /// The URL that is requested.
    pub url: Located<String>,
    /// Where the requests come from.
    pub from: Origin,
    /// The method.
    #[serde(default = "check::get")]
    pub method: String,
    /// Headers of each request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Each request's body.
    pub body: Option<String>,
    /// Open model: requests come at a rate, whatever the answers do.
    pub open: Option<Open>,
    /// Closed model: clients that wait for each answer.
    pub closed: Option<Closed>,
    /// When it starts by itself; without it, a `traffic` step starts it.
    pub start: Option<Moment>,
    /// How long it lasts; without it, until a `traffic` step stops it or the run ends.
    pub duration: Option<Span>,
    /// How long a client waits for an answer.
    pub timeout: Option<Span>,
}

/// An open model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Open {
    /// Requests per second, all the time.
    pub rate: Option<f64>,
    /// Requests per second at points of time since the traffic's start; between two points the rate changes
    /// linearly, after the last it stays. Two points at the same time make a step.
    #[serde(default)]
    pub schedule: Vec<RatePoint>,
    /// How requests are spaced.
    #[serde(default)]
    pub arrivals: Arrivals,
}

/// A rate at a point of time.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RatePoint {
    /// Time since the traffic's start.
    pub at: Span,
    /// Requests per second.
    pub rate: f64,
}

/// How an open model spaces its requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Arrivals {
    /// Evenly.
    #[default]
    Constant,
    /// Independent of one another: exponentially distributed gaps.
    Poisson,
}

/// A closed model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Closed {
    /// Clients, each with one request at a time.
    pub clients: u32,
    /// How long a client thinks between an answer and its next request.
    #[serde(default)]
    pub think: Span,
    /// Whether each client keeps the cookies that answers set and sends them along, as a browser does.
    #[serde(default)]
    pub keep_cookies: bool,
}
