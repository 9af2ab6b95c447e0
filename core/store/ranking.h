/* ranking.h: how well a text fits the words of a search. Private to the room. */
#ifndef STEERD_CORE_STORE_RANKING_H
#define STEERD_CORE_STORE_RANKING_H

#include <sqlite3.h>

#define RANKING_POINTER "worst rank"

/* Adds a function to a connection, of the word index and one value:
 *   relevance(explanation_words, description)   BM25 of the row for the query, negated so that the best is the smallest
 *   relevance(explanation_words, pointer)       whether the row could have a rank of at most *pointer (a double, bound with
 *                                               sqlite3_bind_pointer as RANKING_POINTER), whatever its length: most rows
 *                                               cannot once a page is full, and need not be fetched
 * Returns an SQLite result code. */
int ranking_install(sqlite3 *db);

#endif
