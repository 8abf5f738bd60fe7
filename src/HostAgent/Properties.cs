using System.Runtime.CompilerServices;

// The tests take the place of what only another kernel or an unlucky moment would bring.
[assembly: InternalsVisibleTo("Fleet.HostAgent.Tests")]
