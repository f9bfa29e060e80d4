// SPDX-License-Identifier: EUPL-1.2
//! Holds nothing yet; `docs/plan.md` says what comes here.
