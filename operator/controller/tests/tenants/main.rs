// SPDX-License-Identifier: EUPL-1.2
//! Tenants, conferences and classes on a real API server, with the roles of the chart.
//!
//! One API server for all cases, which run one after the other: the last asks whether the operator has gone quiet.

#[path = "conferences.rs"]
mod conferences;
#[path = "gitops.rs"]
mod gitops;
#[path = "namespaces.rs"]
mod namespaces;
#[path = "windows.rs"]
mod windows;
#[path = "world.rs"]
mod world;

use std::{future::Future, pin::Pin, process::ExitCode, sync::Arc};

use anyhow::Result;
use libtest_mimic::{Arguments, Trial};
use world::World;

type Case = fn(Arc<World>) -> Pin<Box<dyn Future<Output = Result<()>> + Send>>;

macro_rules! cases {
    ($($module:ident::$name:ident),+ $(,)?) => {
        &[$((stringify!($name), |world| Box::pin(async move { $module::$name(&world).await }))),+]
    };
}

const CASES: &[(&str, Case)] = cases![
    // First, while Kubernetes still learns that there are conferences to count.
    namespaces::a_ready_tenant_takes_its_first_conference_and_not_one_more_than_its_quota,
    namespaces::a_tenant_gets_a_namespace_with_everything_that_guards_it,
    namespaces::what_others_change_or_delete_is_put_back,
    namespaces::a_namespace_that_is_not_the_tenants_is_left_alone_until_it_is_offered,
    namespaces::administrators_may_declare_conferences_and_read_no_list_of_secrets,
    namespaces::a_tenant_with_active_rooms_stays_until_they_are_over_and_its_namespace_is_kept,
    namespaces::a_forced_deletion_takes_the_namespace_along,
    conferences::kubectl_waits_for_tenant_conference_and_class,
    conferences::a_conference_outside_of_a_tenants_namespace_says_so,
    conferences::a_password_is_made_and_made_anew_when_its_secret_is_deleted,
    conferences::a_suspended_tenant_keeps_its_conferences_shut,
    conferences::a_refusal_of_the_control_plane_stands_in_the_status,
    conferences::a_missing_key_is_told_with_its_field_and_gone_when_it_comes,
    conferences::a_meeting_costs_three_writes_of_its_status,
    conferences::a_conference_that_is_over_is_collected,
    gitops::flux_and_argo_cd_see_what_the_conditions_say,
    gitops::what_a_newer_version_declared_is_kept_and_told,
    namespaces::a_forced_deletion_waits_for_its_grace_and_no_longer,
    windows::a_media_node_is_published_with_the_window_that_will_empty_it,
    conferences::an_operator_with_nothing_to_do_writes_nothing,
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if std::env::var_os("RUST_LOG").is_some() {
        tracing_subscriber::fmt()
            .with_writer(std::io::stderr)
            .init();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let world = if arguments.list {
        None
    } else {
        match runtime.block_on(World::start()) {
            Ok(world) => world.map(Arc::new),
            Err(error) => {
                eprintln!("{error:#}");
                return ExitCode::FAILURE;
            }
        }
    };
    let trials = CASES
        .iter()
        .map(|(name, case)| {
            let (world, handle) = (world.clone(), runtime.handle().clone());
            let skipped = world.is_none();
            Trial::test(*name, move || {
                let Some(world) = world else {
                    return Err("there is no API server".into());
                };
                handle
                    .block_on(case(world))
                    .map_err(|error| format!("{error:#}").into())
            })
            .with_ignored_flag(skipped && !std::env::args().any(|argument| argument == "--list"))
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    drop(world);
    conclusion.exit_code()
}
