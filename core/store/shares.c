/* shares.c: rows of share links. Request and reply are opaque text. */
#include "core/base/secret.h"
#include "core/store/store_int.h"

static int share_take(struct row *row, struct store_share *out) {
  *out = (struct store_share){0};
  out->id = row_text(row);
  out->kind = row_text(row);
  out->model = row_text(row);
  out->request = row_text(row);
  out->reply = row_text(row);
  out->created_at = row_text(row);
  return row_check_seal(row, "a shared output");
}

int store_share_save(struct store *store, const struct store_share *share, char out_id[STORE_SHARE_ID],
                     struct error *error) {
  struct row row;
  char now[25], name[STORE_SHARE_ID];
  if (secret_name(name, error) != 0) return -1;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  row_open(&row, writer, "INSERT INTO shares(id, kind, model, request, reply, created_at, seal)"
           " VALUES(?,?,?,?,?,?,?)", NULL, error);
  row_put_text(&row, name);
  row_put_text(&row, share->kind);
  row_put_text(&row, share->model);
  row_put_text(&row, share->request);
  row_put_text(&row, share->reply);
  row_put_text(&row, time_or_now(share->created_at, now));
  row_put_seal(&row);
  int result = store_writer_end(store, writer, row_run(&row), error);
  for (size_t i = 0; result == 0 && i < STORE_SHARE_ID; i++) out_id[i] = name[i];
  return result;
}

int store_share_load(struct store *store, const char *id, struct arena *arena, struct store_share *out,
                     struct error *error) {
  struct row row;
  struct connection *reader = store_reader(store, error);
  if (!reader) return -1;
  row_open(&row, reader, "SELECT id, kind, model, request, reply, created_at, seal FROM shares WHERE id = ?1", arena,
           error);
  row_put_text(&row, id);
  int got = row_next(&row);
  if (got == 1 && share_take(&row, out) != 0) got = -1;
  row_close(&row);
  return store_reader_end(store, reader, got);
}

int store_share_delete(struct store *store, const char *id, struct error *error) {
  struct row row;
  struct connection *writer = store_writer(store, error);
  if (!writer) return -1;
  row_open(&row, writer, "DELETE FROM shares WHERE id = ?1", NULL, error);
  row_put_text(&row, id);
  int result = row_run(&row);
  if (result == 0) result = sqlite3_changes(writer->db) > 0;
  return store_writer_end(store, writer, result, error);
}
