//! A cluster as its clients see it.

mod controllers;
mod jobs;
mod pods;
