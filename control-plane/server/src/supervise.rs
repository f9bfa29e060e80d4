// SPDX-License-Identifier: EUPL-1.2
//! Tasks that have to run as long as the process: the end of one stops the others and the process, loudly.

use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

/// Tasks end by themselves within this time after the token fell.
const STOP: Duration = Duration::from_secs(10);

/// A task ended that should not have.
#[derive(Debug, thiserror::Error)]
pub enum TaskEnd {
    /// It returned.
    #[error("{name} ended by itself")]
    Early {
        /// The task.
        name: &'static str,
    },
    /// It failed.
    #[error("{name} failed: {error:#}")]
    Failed {
        /// The task.
        name: &'static str,
        /// Why.
        error: anyhow::Error,
    },
    /// It panicked.
    #[error("a task panicked: {0}")]
    Panicked(JoinError),
}

/// Named tasks under one token.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    stop: CancellationToken,
}

impl Supervisor {
    /// No task yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Falls when the process stops.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Adds a task that runs until the token falls.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { (name, task.await) });
    }

    /// Runs until `signal`, or until a task ends early; then everything stops in good order.
    ///
    /// # Errors
    /// The first task that ended early.
    pub async fn run(mut self, signal: impl Future<Output = ()>) -> Result<(), TaskEnd> {
        let result = tokio::select! {
            () = signal => Ok(()),
            Some(ended) = self.tasks.join_next() => Err(match ended {
                Ok((name, Ok(()))) => TaskEnd::Early { name },
                Ok((name, Err(error))) => TaskEnd::Failed { name, error },
                Err(error) => TaskEnd::Panicked(error),
            }),
        };
        self.stop.cancel();
        let rest = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok((_, Ok(()))) => {}
                    Ok((name, Err(error))) => {
                        tracing::warn!(event = "TaskFailed", name, error = %format!("{error:#}"), "a task did not stop in good order")
                    }
                    Err(error) => {
                        tracing::error!(event = "TaskPanicked", %error, "a task panicked while stopping")
                    }
                }
            }
        };
        if tokio::time::timeout(STOP, rest).await.is_err() {
            tracing::warn!(event = "TasksLate", "not all tasks stopped in time");
        }
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_signal_stops_all_tasks_in_good_order() {
        let mut supervisor = Supervisor::new();
        for name in ["a", "b"] {
            let stop = supervisor.token();
            supervisor.spawn(name, async move {
                stop.cancelled().await;
                Ok(())
            });
        }
        supervisor
            .run(std::future::ready(()))
            .await
            .expect("good order");
    }

    #[tokio::test]
    async fn a_task_that_ends_early_ends_the_process_by_name() {
        for panics in [false, true] {
            let mut supervisor = Supervisor::new();
            let stop = supervisor.token();
            supervisor.spawn("steady", async move {
                stop.cancelled().await;
                Ok(())
            });
            supervisor.spawn("hasty", async move {
                assert!(!panics, "on purpose");
                Ok(())
            });
            let end = supervisor
                .run(std::future::pending())
                .await
                .expect_err("ended");
            assert_eq!(matches!(end, TaskEnd::Panicked(_)), panics, "{end}");
        }
    }
}
