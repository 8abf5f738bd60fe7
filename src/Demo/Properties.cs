using System.Runtime.CompilerServices;

// The end-to-end tests read the same evidence.
[assembly: InternalsVisibleTo("Fleet.EndToEnd.Tests")]
