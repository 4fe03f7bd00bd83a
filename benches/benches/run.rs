//! Whole runs of the article's scenarios, in process: everything but reading the files.

use std::path::Path;

use criterion::{Criterion, criterion_group, criterion_main};
use testbed::RunOptions;
use testbed::scenario::Loaded;

fn runs(criterion: &mut Criterion) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut group = criterion.benchmark_group("run");
    group.sample_size(10);
    for name in ["article-success", "article-no-values"] {
        let loaded = Loaded::read(&folder.join(format!("{name}.yaml"))).expect("the scenario is in order");
        group.bench_function(name, |bencher| {
            bencher.iter(|| testbed::run(&loaded, &RunOptions::default()));
        });
    }
    group.finish();
}

criterion_group!(benches, runs);
criterion_main!(benches);
