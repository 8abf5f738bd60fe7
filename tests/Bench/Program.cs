using System.CommandLine;
using Fleet.Bench;

var root = new RootCommand("Figures, not assertions: measures a fleet of real processes on this machine. Compare only what one run prints.") { Blackout.Command() };
return await root.Parse(args).InvokeAsync();
