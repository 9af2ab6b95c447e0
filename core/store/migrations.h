/* migrations.h: the schema, as a list of steps that only goes forward. Private to the room.
 *
 * The schema number of a file is PRAGMA user_version: how many steps it has had. A step that has been released never
 * changes; a change is a new step at the end. */
#ifndef STEERD_CORE_STORE_MIGRATIONS_H
#define STEERD_CORE_STORE_MIGRATIONS_H

#include "core/store/connection.h"

#define APPLICATION_ID 0x73746472 /* "stdr", at offset 68 of every store */

int migrations_count(void);

/* The schema number of the file. */
int migrations_schema(struct connection *connection, int *schema, struct error *error) MUST_CHECK;

/* Brings the file behind `writer` from its schema to `target`, each step in one transaction. ERROR_FORMAT: its number is not one that
 * this build knows, or its tables are not those of its number. */
int migrations_run(struct connection *writer, int target, struct error *error) MUST_CHECK;

/* 0 when every table and index of the present schema is there as the steps make it; else ERROR_FORMAT. */
int migrations_verify(struct connection *connection, struct error *error) MUST_CHECK;

#endif
