using Fleet.HostAgent;
using Fleet.HostAgent.Check;
using Fleet.HostAgent.Options;
using Fleet.HostAgent.State;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using Serilog;

if (args is ["--help" or "-h" or "help"])
{
    Console.WriteLine(HelpText.Text);
    return 0;
}

if (args is ["--version"])
{
    Console.WriteLine(AgentVersion.Text);
    return 0;
}

if (args is ["check"] or ["check", "--json"])
{
    return await CheckCommand.RunAsync(json: args.Length == 2, Console.Out);
}

try
{
    var builder = Host.CreateApplicationBuilder(new HostApplicationBuilderSettings
    {
        Args = args,
        ContentRootPath = AppContext.BaseDirectory,
    });
    builder.AddHostAgent();
    using var host = builder.Build();
    // Settings and the state folder first, so that what is wrong with them is said in a line each.
    _ = host.Services.GetRequiredService<IOptions<AgentOptions>>().Value;
    _ = host.Services.GetRequiredService<StateFolder>();
    await host.RunAsync();
    return Environment.ExitCode;
}
catch (OptionsValidationException exception)
{
    foreach (var failure in exception.Failures)
    {
        await Console.Error.WriteLineAsync(failure);
    }

    await Console.Error.WriteLineAsync("Run with --help for all settings.");
    return ExitCodes.Configuration;
}
catch (Exception exception) when (exception is InvalidOperationException or InvalidDataException or IOException or UnauthorizedAccessException)
{
    await Console.Error.WriteLineAsync(exception.Message);
    return ExitCodes.Configuration;
}
finally
{
    await Log.CloseAndFlushAsync();
}
