INSERT INTO cursors (feed, position) VALUES ('auth', 17);
