/* map_command.h: the verb `steerd map`: the map of a source into a store, with a progress bar. */
#ifndef STEERD_SERVER_MAP_COMMAND_H
#define STEERD_SERVER_MAP_COMMAND_H

/* argv holds the arguments behind the verb. Returns the exit status. */
int run_map(int argc, char **argv);
void help_map(void);

#endif
