//! `proxy-train`: the offline side.
fn main() {
    tracing_subscriber::fmt().init();
    let args: Vec<String> = std::env::args().collect();
    let recipe = if args[1] == "smoke" { unlearn_proxy::train::pretrain::SMOKE } else { unlearn_proxy::train::pretrain::STANDARD };
    unlearn_proxy::train::pretrain::Pretraining { recipe, seed: 42, out: args[2].clone().into() }.lab(42).unwrap();
}
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
