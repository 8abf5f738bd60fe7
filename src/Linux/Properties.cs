using System.Runtime.CompilerServices;

// The tests compare the internal interop structs and constants with the C headers.
[assembly: InternalsVisibleTo("Fleet.Linux.Tests")]
[assembly: InternalsVisibleTo("Fleet.HostAgent.Tests")]
