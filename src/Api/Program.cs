using Fleet.Api.Startup;
using Fleet.Data.Storage;
using Microsoft.Extensions.Options;

try
{
    await using var app = FleetApp.Create(args);
    await app.RunAsync();
    return 0;
}
catch (StoreException exception)
{
    await Console.Error.WriteLineAsync($"Fleet.Api cannot start: {exception.Message}");
    return 1;
}
catch (OptionsValidationException exception)
{
    await Console.Error.WriteLineAsync($"Fleet.Api cannot start: {string.Join(" ", exception.Failures)}");
    return 1;
}
catch (IOException exception)
{
    await Console.Error.WriteLineAsync($"Fleet.Api cannot start: {exception.Message}");
    return 1;
}
