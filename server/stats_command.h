/* stats_command.h: the verb `steerd stats`: a statistics job in this process, with a progress bar. */
#ifndef STEERD_SERVER_STATS_COMMAND_H
#define STEERD_SERVER_STATS_COMMAND_H

/* argv holds the arguments behind the verb. Returns the exit status. */
int run_stats(int argc, char **argv);
void help_stats(void);

#endif
