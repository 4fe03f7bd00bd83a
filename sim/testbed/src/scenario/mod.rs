//! Scenario files: the format, its reading and its checking. `docs/scenario.md` explains every field.
//!
//! Reading is strict: unknown fields, names that nothing has, paths that lead nowhere and manifests that are no YAML
//! are problems that name file, line and column, before anything runs.

mod check;
mod error;
mod expect;
mod files;
mod format;
mod scalar;
mod step;
mod traffic;
mod validate;

pub use fixtures::Behaviour;

pub use check::{
    CanaryCheck, GatewayOrigin, LogCheck, ObjectCheck, Origin, PodOrigin, QueryCheck, RequestCheck,
    RolloutCheck,
};
pub use error::ScenarioError;
pub(crate) use error::suggestion;
pub use expect::{
    DurationLimit, Errors, Expectation, LatencyLimit, LogExpectation, LogMode, RequestCount, Share,
};
pub use files::Loaded;
pub(crate) use files::changed;
pub use format::{
    ApiVersion, ClusterFields, Golden, Kind, MeshFields, Metadata, RepositoryFields, RoleField, Scenario,
    Spec, TelemetryField, Testbed, TestbedSpec,
};
pub use scalar::{Located, Moment, Span};
pub use step::{
    ApiFault, Apply, Crash, Cut, Delete, FaultStep, GetStep, GitChange, GitStep, ImageStep, Notify,
    PatchStep, PatchType, Replace, Step, TrafficStep, Wait,
};
pub use traffic::{Arrivals, Closed, Open, RatePoint, Traffic};
pub(crate) use validate::{api_version_of, kind_of};
pub use yaml::Position;

/// The JSON Schema of scenario and testbed files.
pub fn schema() -> serde_json::Value {
    #[derive(schemars::JsonSchema)]
    #[schemars(untagged, title = "Coalmine")]
    #[expect(dead_code, reason = "only its schema is used")]
    enum Document {
        Scenario(Box<Scenario>),
        Testbed(Box<Testbed>),
    }
    schemars::schema_for!(Document).to_value()
}
