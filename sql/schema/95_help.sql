-- Help: what the comments say, by topic. The comment on a function is the one place where its contract is written.

CREATE FUNCTION keywright.help(topic text DEFAULT NULL)
RETURNS TABLE (function text, does text, arguments text, result text, example text, errors text, capabilities text)
LANGUAGE sql STABLE PARALLEL SAFE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT format('keywright.%s(%s)', p.proname, (
           -- The arguments that are passed, with their defaults; others are columns of the result.
           SELECT string_agg(concat_ws(' ', a.name, format_type(a.type, NULL),
                    'DEFAULT ' || regexp_replace(pg_get_function_arg_default(p.oid, a.position::integer), '::[a-z \[\]]+$', '')),
                    ', ' ORDER BY a.position)
             FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]), p.proargnames, p.proargmodes)
                  WITH ORDINALITY AS a (type, name, mode, position)
            WHERE coalesce(a.mode, 'i') IN ('i', 'b', 'v'))),
         regexp_replace(c.comment, '\n(?:Arguments|Result|Errors|Example): .*?(?=\n(?:Arguments|Result|Who may|Progress|Errors|Example): |$)', '', 'g'),
         substring(c.comment FROM '\nArguments: (.*?)(?=\n(?:Result|Who may|Progress|Errors|Example): |$)'),
         concat_ws(E'\n', regexp_replace(pg_get_function_result(p.oid), '\mrecord$', (
             SELECT format('(%s)', string_agg(format('%s %s', a.name, format_type(a.type, NULL)), ', ' ORDER BY a.position))
               FROM unnest(p.proallargtypes, p.proargnames, p.proargmodes) WITH ORDINALITY AS a (type, name, mode, position)
              WHERE a.mode IN ('o', 'b'))),
           substring(c.comment FROM '\nResult: (.*?)(?=\n(?:Arguments|Who may|Progress|Errors|Example): |$)')),
         substring(c.comment FROM '\nExample: (.*?)$'),
         substring(c.comment FROM '\nErrors: (.*?)(?=\n(?:Arguments|Result|Who may|Progress|Example): |$)'),
         (SELECT string_agg(f.capability, ', ' ORDER BY f.capability = 'admin', f.capability)
            FROM keywright._capability_functions AS f
           WHERE 'keywright.' || f.signature = p.oid::regprocedure::text)
    FROM pg_catalog.pg_proc AS p
   CROSS JOIN LATERAL (SELECT obj_description(p.oid, 'pg_proc')) AS c (comment)
   CROSS JOIN LATERAL (
     SELECT lower((p.proname || ' ' || c.comment) COLLATE "C"), tsvector_to_array(to_tsvector('english', replace(p.proname::text, '_', ' ') || ' ' || c.comment))
     OFFSET 0) AS v (words, stems)
   CROSS JOIN LATERAL (
     -- No more words than anybody types, each as it is or in another form: rotates, rotating.
     SELECT bool_and(strpos(v.words, t.word) > 0 OR coalesce(t.stem = ANY (v.stems), false)),
            count(*) FILTER (WHERE strpos(p.proname::text COLLATE "C", coalesce(t.stem, t.word)) > 0)
       FROM (SELECT w.word, CASE WHEN w.word ~ '^[a-z]+$' THEN (tsvector_to_array(to_tsvector('english', w.word)))[1] END
               FROM regexp_split_to_table(lower(left(topic, 200) COLLATE "C"), '[\s-]+') AS w (word)) AS t (word, stem)) AS f (found, named)
   WHERE p.pronamespace = 'keywright'::regnamespace
     AND NOT starts_with(p.proname::text, '_')
     AND f.found IS NOT FALSE
   -- Who has most of them in the name comes first, then whose comment speaks of them.
   ORDER BY f.named DESC, p.proname
$$;
COMMENT ON FUNCTION keywright.help(text) IS
'The manual: a row for each function whose name or comment has the words of the topic, those with most of them in their name first. In psql \x auto reads well. What is after a colon in an example is a variable of psql: \set token kwk_...
Arguments: topic (words, in any case, order and form, of which the first 200 characters count; null or empty: all functions).
Result: function (how it is called, with defaults); does; arguments; result; example; errors (SQLSTATEs; 25006 for any function that has to write in a READ ONLY transaction or on a standby); capabilities (grant_access with one of them lets a role call it).
Errors: none of its own.
Example: SELECT function, example FROM keywright.help(''rotate key'');';
