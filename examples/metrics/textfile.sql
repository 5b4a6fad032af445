-- The metrics as text that Prometheus reads, for the textfile collector of node_exporter. As a role with the capability
-- maintainer or auditor, each minute; the file is there whole or not at all:
--
--   psql -X -q -U keywright_maintainer -d shop -f textfile.sql -o keywright.prom.new && mv keywright.prom.new keywright.prom
\set ON_ERROR_STOP on
\pset format unaligned
\pset tuples_only on
SELECT CASE row_number() OVER (PARTITION BY m.name ORDER BY m.labels) WHEN 1 THEN format(E'# TYPE %s %s\n', m.name, CASE WHEN m.name ~ '_total$' THEN 'counter' ELSE 'gauge' END) ELSE '' END
       || m.name || coalesce('{' || l.list || '}', '') || ' ' || m.value
  FROM keywright.metrics() AS m, LATERAL (
    SELECT string_agg(format('%s="%s"', key, replace(replace(replace(value, '\', '\\'), '"', '\"'), E'\n', '\n')), ',' ORDER BY key)
      FROM jsonb_each_text(m.labels)) AS l (list)
 ORDER BY m.name, m.labels;
