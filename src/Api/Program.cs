using Fleet.Api.Startup;
using Fleet.Api.Verbs;
using Fleet.Data.Storage;
using Microsoft.Extensions.Options;

try
{
    if (StoreVerbs.Run(args) is { } exitCode)
    {
        return exitCode;
    }

    await using var app = FleetApp.Create(args);
    await app.RunAsync();
    return 0;
}
catch (StoreException exception)
{
    await Console.Error.WriteLineAsync($"Fleet.Api cannot go on: {exception.Message}");
    return 1;
}
catch (OptionsValidationException exception)
{
    await Console.Error.WriteLineAsync($"Fleet.Api cannot start: {string.Join(" ", exception.Failures)}");
    return 1;
}
catch (Exception exception) when (exception is IOException or UnauthorizedAccessException)
{
    await Console.Error.WriteLineAsync($"Fleet.Api cannot go on: {exception.Message}");
    return 1;
}
