//! Nodes by what operators filter by: each condition is a search in an index, and all must hold.

use muster_types::NodeId;
use sqlx::AssertSqlSafe;

use super::super::{EXPLAIN, EXPLAINED_IN, ThisStore};
use super::decode::stored;
use crate::domain::cell::CellId;
use crate::domain::filter::NodeFilter;
use crate::domain::node::{Node, PLACE_LABEL};
use crate::domain::table::Stored;
use crate::store::{READ_ROWS, StoreError};

/// A statement with its parameters behind `$1`, which is the id that the page begins after.
struct Selection {
    sql: String,
    texts: Vec<String>,
}

impl Selection {
    /// Whose ids were resolved is not looked for here. `cells` are those that bear one of the filter's places as a name.
    fn of(filter: &NodeFilter, cells: &[CellId]) -> Self {
        let mut it =
            Self { sql: "SELECT doc, revision FROM nodes WHERE id > $1".to_owned(), texts: Vec::new() };
        if !filter.states.is_empty() {
            let states = it.list(filter.states.iter().map(|state| state.as_str()));
            it.demand(&format!("presence IN ({states})"));
        }
        for (name, value) in &filter.labels {
            let (name, value) = (it.parameter(name.clone()), it.parameter(value.clone()));
            it.demand(&format!(
                "id IN (SELECT node FROM node_labels WHERE name = {name} AND value = {value})"
            ));
        }
        if !filter.places.is_empty() {
            it.demand_place(filter, cells);
        }
        it.sql += &format!(" ORDER BY id LIMIT {READ_ROWS}");
        it
    }

    /// By label, or by the cell's name.
    fn demand_place(&mut self, filter: &NodeFilter, cells: &[CellId]) {
        let label = self.parameter(PLACE_LABEL.to_owned());
        let places = self.list(filter.places.iter().map(String::as_str));
        let mut ids = format!("SELECT node FROM node_labels WHERE name = {label} AND value IN ({places})");
        if !cells.is_empty() {
            let cells: Vec<_> = cells.iter().map(|cell| cell.0.cast_signed().to_string()).collect();
            ids += &format!(" UNION ALL SELECT id FROM nodes WHERE cell IN ({})", cells.join(", "));
        }
        self.demand(&format!("id IN ({ids})"));
    }

    fn demand(&mut self, condition: &str) {
        self.sql += " AND ";
        self.sql += condition;
    }

    /// The name of a new parameter.
    fn parameter(&mut self, text: String) -> String {
        self.texts.push(text);
        format!("${}", self.texts.len() + 1)
    }

    /// The names of new parameters, each by itself: of a list in one, planners do not know that it is short.
    fn list<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> String {
        texts.map(|text| self.parameter(text.to_owned())).collect::<Vec<_>>().join(", ")
    }
}

impl ThisStore {
    pub(super) async fn read_nodes_like(
        &self,
        filter: &NodeFilter,
        cells: &[CellId],
        after: Option<NodeId>,
    ) -> Result<Vec<Stored<Node>>, StoreError> {
        let Selection { sql, texts } = Selection::of(filter, cells);
        let mut query = sqlx::query_as(AssertSqlSafe(sql)).bind(first_id(after));
        for text in texts {
            query = query.bind(text);
        }
        stored(query.fetch_all(&mut *self.reader().await?).await?)
    }

    pub(super) async fn read_plan(
        &self,
        filter: &NodeFilter,
        cells: &[CellId],
    ) -> Result<Vec<String>, StoreError> {
        let Selection { sql, texts } = Selection::of(filter, cells);
        let mut query = sqlx::query(AssertSqlSafe(format!("{EXPLAIN} {sql}"))).bind(first_id(None));
        for text in texts {
            query = query.bind(text);
        }
        let rows = query.fetch_all(&mut *self.reader().await?).await?;
        rows.iter().map(|row| Ok(sqlx::Row::try_get(row, EXPLAINED_IN)?)).collect()
    }
}

/// Ids are longer than nothing, so all come behind it.
fn first_id(after: Option<NodeId>) -> Vec<u8> {
    after.map_or_else(Vec::new, |id| id.as_bytes().to_vec())
}
