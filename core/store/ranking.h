/* ranking.h: how well a text fits the words of a search. Private to the room. */
#ifndef STEERD_CORE_STORE_RANKING_H
#define STEERD_CORE_STORE_RANKING_H

#include <sqlite3.h>

/* Adds the function relevance(explanation_words, description) to a connection: BM25 of the row for the query, negated
 * so that the best is the smallest. Returns an SQLite result code. */
int ranking_install(sqlite3 *db);

#endif
