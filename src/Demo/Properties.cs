using System.Runtime.CompilerServices;

// The end-to-end tests and the lab read the same evidence.
[assembly: InternalsVisibleTo("Fleet.EndToEnd.Tests")]
[assembly: InternalsVisibleTo("Fleet.Lab.Tests")]
