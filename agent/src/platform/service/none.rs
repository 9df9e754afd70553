//! A host without a service manager that we know: containers, and other init systems.

use super::{Install, ServiceError, Services};

#[derive(Debug)]
pub(super) struct None;

impl Services for None {
    fn name(&self) -> &'static str {
        "none"
    }

    fn check(&self) -> Result<(), ServiceError> {
        Err(ServiceError::NoManager)
    }

    fn install(&self, _: &Install) -> Result<(), ServiceError> {
        Err(ServiceError::NoManager)
    }

    fn remove(&self) -> Result<(), ServiceError> {
        Ok(())
    }
}
