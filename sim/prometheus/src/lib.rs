//! Prometheus as a program: scraping, service discovery, the HTTP API, around [`promql`].
//!
//! [`program`] is what images `prom/prometheus` run. Pure files: [`config`] (the configuration file), [`relabel`],
//! [`exposition`] (the text format), [`targets`] (labels of discovered objects). The rest is the shell: [`scrape`] loops
//! on the run's clock, and [`api`].
//!
//! Not done: rules and alerts (named in a log line), remote read and write, native histograms, storage on disk.

mod api;
mod config;
mod discovery;
mod exposition;
mod relabel;
mod scrape;
mod server;
mod targets;

pub use server::program;
