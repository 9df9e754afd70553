//! Stores as earlier versions left them: each migration, and after it the rows that the version which came with it wrote.

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{AssertSqlSafe, PgConnection, SqliteConnection};

/// SQLite's name for what makes bytes of hexadecimal digits, so that both databases take the same rows.
const UNHEX: &str =
    "CREATE FUNCTION unhex(text) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$ SELECT decode($1, 'hex') $$";

/// A schema's past.
#[derive(Debug)]
pub struct Earlier {
    pub migrations: Migrator,
    /// By the version of the migration that they come after: SQL that adds rows.
    pub rows: &'static [(i64, &'static str)],
}

impl Earlier {
    /// Oldest first.
    pub fn versions(&self) -> Vec<i64> {
        self.migrations.iter().map(|migration| migration.version).collect()
    }

    fn rows_after(&self, version: i64) -> impl Iterator<Item = AssertSqlSafe<&'static str>> {
        self.rows.iter().filter(move |(after, _)| *after == version).map(|(_, sql)| AssertSqlSafe(*sql))
    }

    /// Brings an empty database to this version.
    ///
    /// # Errors
    /// A migration or a row is refused.
    pub async fn sqlite(&self, version: i64, db: &mut SqliteConnection) -> Result<(), MigrateError> {
        for step in self.versions().into_iter().filter(|step| *step <= version) {
            self.migrations.run_to(step, &mut *db).await?;
            for rows in self.rows_after(step) {
                sqlx::raw_sql(rows).execute(&mut *db).await?;
            }
        }
        Ok(())
    }

    /// The same.
    ///
    /// # Errors
    /// A migration or a row is refused.
    pub async fn postgres(&self, version: i64, db: &mut PgConnection) -> Result<(), MigrateError> {
        sqlx::raw_sql(UNHEX).execute(&mut *db).await?;
        for step in self.versions().into_iter().filter(|step| *step <= version) {
            self.migrations.run_to(step, &mut *db).await?;
            for rows in self.rows_after(step) {
                sqlx::raw_sql(rows).execute(&mut *db).await?;
            }
        }
        Ok(())
    }
}
