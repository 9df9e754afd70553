//! Stores of every earlier version: built up to one migration, filled, brought up to date; what lay there lies there still.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use muster_kit::testing::postgres::Postgres;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};

/// A service's migrations, and which tables and columns later ones gave up for others.
struct Store {
    service: &'static str,
    sqlite: Migrator,
    postgres: Migrator,
    given_up: &'static [&'static str],
}

fn stores() -> [Store; 4] {
    [
        Store {
            service: "auth",
            sqlite: sqlx::migrate!("../../services/auth/migrations/sqlite"),
            postgres: sqlx::migrate!("../../services/auth/migrations/postgres"),
            // To heads and link_uses.
            given_up: &["head", "links.use_certificate", "links.use_key"],
        },
        Store {
            service: "topology",
            sqlite: sqlx::migrate!("../../services/topology/src/store/migrations/sqlite"),
            postgres: sqlx::migrate!("../../services/topology/src/store/migrations/postgres"),
            given_up: &[],
        },
        Store {
            service: "dht_bootstrap",
            sqlite: sqlx::migrate!("../../services/dht-bootstrap/src/store/migrations/sqlite"),
            postgres: sqlx::migrate!("../../services/dht-bootstrap/src/store/migrations/postgres"),
            given_up: &[],
        },
        Store {
            service: "gsn_registry",
            sqlite: sqlx::migrate!("../../services/gsn-registry/src/store/migrations/sqlite"),
            postgres: sqlx::migrate!("../../services/gsn-registry/src/store/migrations/postgres"),
            given_up: &[],
        },
    ]
}

/// The first `count` migrations.
fn earlier(all: &Migrator, count: usize) -> Migrator {
    Migrator { migrations: Cow::Owned(all.migrations[..count].to_vec()), ..Migrator::DEFAULT }
}

/// A table's columns: name, type, and whether the database fills it by itself.
type Columns = Vec<(String, String, bool)>;

/// What the test asks of either database.
enum Database {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Database {
    async fn migrate(&mut self, by: &Migrator) -> Result<()> {
        match self {
            Self::Sqlite(on) => by.run(on).await?,
            Self::Postgres(on) => by.run(on).await?,
        }
        Ok(())
    }

    async fn execute(&mut self, sql: String) -> Result<()> {
        let done = match self {
            Self::Sqlite(on) => sqlx::query(AssertSqlSafe(sql.clone())).execute(on).await.map(drop),
            Self::Postgres(on) => sqlx::query(AssertSqlSafe(sql.clone())).execute(on).await.map(drop),
        };
        done.context(sql)
    }

    async fn count(&mut self, sql: String) -> Result<i64> {
        let counted = match self {
            Self::Sqlite(on) => sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(on).await,
            Self::Postgres(on) => sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_one(on).await,
        };
        counted.context(sql)
    }

    async fn tables(&mut self) -> Result<BTreeMap<String, Columns>> {
        const SQLITE: &str = "SELECT m.name, c.name, c.type, c.dflt_value IS NOT NULL
            FROM sqlite_master AS m, pragma_table_info(m.name) AS c
            WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name NOT LIKE '\\_sqlx%' ESCAPE '\\'";
        const POSTGRES: &str = "SELECT table_name::text, column_name::text, data_type::text,
            column_default IS NOT NULL OR is_identity = 'YES' FROM information_schema.columns
            WHERE table_schema = current_schema() AND table_name NOT LIKE '\\_sqlx%'";
        let rows: Vec<(String, String, String, bool)> = match self {
            Self::Sqlite(on) => sqlx::query_as(SQLITE).fetch_all(on).await?,
            Self::Postgres(on) => sqlx::query_as(POSTGRES).fetch_all(on).await?,
        };
        let mut tables: BTreeMap<String, Columns> = BTreeMap::new();
        for (table, column, kind, filled) in rows {
            tables.entry(table).or_default().push((column, kind, filled));
        }
        Ok(tables)
    }

    /// A value of this column, as SQL writes it.
    fn value(&self, column: &str, kind: &str) -> String {
        match (column, kind.to_lowercase().as_str()) {
            ("doc", _) => {
                r#"'{"presence":"online","labels":{"site":"here"},"attested":{"labels":{"owner":"it"}}}'"#
                    .to_owned()
            }
            (_, "integer" | "bigint") => "1".to_owned(),
            (_, "text") => "'kept'".to_owned(),
            _ => match self {
                Self::Sqlite(_) => format!("x'{}'", "5a".repeat(20)),
                Self::Postgres(_) => format!("'\\x{}'::bytea", "5a".repeat(20)),
            },
        }
    }
}

/// A row in every table that has none; answers each `table.column` with the value that lies there.
async fn fill(database: &mut Database) -> Result<BTreeMap<(String, String), String>> {
    let mut lies = BTreeMap::new();
    for (table, columns) in database.tables().await? {
        if database.count(format!("SELECT count(*) FROM {table}")).await? > 0 {
            continue;
        }
        let own: Vec<_> = columns.into_iter().filter(|(.., filled)| !filled).collect();
        let names: Vec<_> = own.iter().map(|(name, ..)| name.as_str()).collect();
        let values: Vec<_> = own.iter().map(|(name, kind, _)| database.value(name, kind)).collect();
        let (into, from) = (names.join(", "), values.join(", "));
        database.execute(format!("INSERT INTO {table} ({into}) VALUES ({from})")).await?;
        let named = names.into_iter().map(|name| (table.clone(), name.to_owned()));
        lies.extend(named.zip(values));
    }
    Ok(lies)
}

/// Brings a store of the first `count` migrations up to date, and again; answers what was given up on the way.
async fn upgrade(mut database: Database, all: &Migrator, count: usize) -> Result<BTreeSet<String>> {
    database.migrate(&earlier(all, count)).await?;
    let lay = fill(&mut database).await?;
    ensure!(!lay.is_empty());
    for _ in 0..2 {
        database.migrate(all).await?;
    }
    let tables = database.tables().await?;
    let mut given_up = BTreeSet::new();
    for ((table, column), value) in lay {
        let Some(columns) = tables.get(&table) else {
            given_up.insert(table);
            continue;
        };
        if !columns.iter().any(|(name, ..)| *name == column) {
            given_up.insert(format!("{table}.{column}"));
            continue;
        }
        let found = database.count(format!("SELECT count(*) FROM {table} WHERE {column} = {value}")).await?;
        ensure!(found > 0, "{table}.{column} is not {value} any more");
    }
    Ok(given_up)
}

fn check(store: &Store, on: &str, count: usize, given_up: &BTreeSet<String>) -> Result<()> {
    let strange: Vec<_> = given_up.iter().filter(|it| !store.given_up.contains(&it.as_str())).collect();
    ensure!(strange.is_empty(), "{} on {on} after {count} migrations lost {strange:?}", store.service);
    Ok(())
}

#[tokio::test]
async fn what_lay_in_an_sqlite_store_of_any_earlier_version_lies_there_after_its_upgrade() -> Result<()> {
    for store in stores() {
        for count in 1..=store.sqlite.migrations.len() {
            let on = SqliteConnectOptions::from_str("sqlite::memory:")?.connect().await?;
            let given_up = upgrade(Database::Sqlite(on), &store.sqlite, count).await;
            check(&store, "SQLite", count, &given_up.with_context(|| format!("{} {count}", store.service))?)?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn what_lay_in_a_postgresql_store_of_any_earlier_version_lies_there_after_its_upgrade() -> Result<()> {
    let server = Postgres::start()?;
    for store in stores() {
        for count in 1..=store.postgres.migrations.len() {
            let schema = format!("{}_{count}", store.service);
            let options = PgConnectOptions::from_str(&server.url())?;
            let mut first = options.connect().await?;
            sqlx::query(AssertSqlSafe(format!("CREATE SCHEMA {schema}"))).execute(&mut first).await?;
            first.close().await?;
            let on = options.options([("search_path", &schema)]).connect().await?;
            let given_up = upgrade(Database::Postgres(on), &store.postgres, count).await;
            check(&store, "PostgreSQL", count, &given_up.with_context(|| schema)?)?;
        }
    }
    Ok(())
}
