//! The throw-away database starts, is reached by its socket, and leaves nothing behind.

use muster_kit::testing::postgres::Postgres;

#[test]
fn a_database_of_ones_own_starts_and_ends() {
    let postgres = Postgres::start().expect("PostgreSQL is installed");
    let url = postgres.url();
    assert!(url.starts_with("postgres://postgres@%2Ftmp%2F"), "{url}");
    let folder = url.split('@').nth(1).unwrap().split('/').next().unwrap().replace("%2F", "/");
    assert!(std::path::Path::new(&folder).join(".s.PGSQL.5432").exists());
    drop(postgres);
    assert!(!std::path::Path::new(&folder).exists());
}
