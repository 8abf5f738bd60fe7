using System.CommandLine;
using Fleet.Bench;
using Fleet.Bench.Scale;

var root = new RootCommand("Figures, not assertions: measures a fleet of real processes on this machine. Compare only what one run prints.") { Blackout.Command(), FleetLoad.Command(), Idle.Command() };
return await root.Parse(args).InvokeAsync();
